"""What a run keeps on disk: its config, checkpoints and metrics."""
