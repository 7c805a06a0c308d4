"""Training every setting of the paper's tables with several seeds, and its report."""
