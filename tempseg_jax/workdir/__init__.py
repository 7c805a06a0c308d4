"""The files of a run: its config, checkpoints and metrics."""
