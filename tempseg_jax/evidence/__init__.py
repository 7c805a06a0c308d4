"""The paper's tables with seeds, controls and error bars: sweep, measure, report."""
