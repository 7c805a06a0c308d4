"""The ablation study: the cells of the paper's tables, with seeds, and the report."""
