"""Using a trained segmenter: prediction, sliding windows, submission, export."""
