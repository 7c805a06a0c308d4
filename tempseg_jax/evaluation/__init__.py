"""Evaluation of a segmenter: confusion matrices, scores, calibration and plots."""
