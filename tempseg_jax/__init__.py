"""Adversarial semantic segmentation with temperatures, in JAX."""
