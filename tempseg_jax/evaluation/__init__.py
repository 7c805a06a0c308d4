"""Scoring a segmenter on whole images: confusion matrices, calibration, figures."""
