"""Datasets and the input pipeline: files on disk to batches of uint8."""
