"""ImageNet weights: where they come from, their layouts, and loading them."""
