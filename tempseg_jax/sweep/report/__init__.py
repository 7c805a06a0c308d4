"""From the finished runs of a sweep to tables, figures and an HTML page."""
