"""Pretrained weights: sources, file layouts, loading and export."""
