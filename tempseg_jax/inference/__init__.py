"""Inference with a trained segmenter: prediction, test servers, export, demo page."""
