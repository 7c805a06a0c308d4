"""The segmentation networks and the discriminator."""
