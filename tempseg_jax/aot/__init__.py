"""Ahead-of-time compilation of a training step for a GPU that is not here."""
