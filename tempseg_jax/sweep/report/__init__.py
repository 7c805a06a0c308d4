"""Tables, figures and an HTML page from the finished runs of a sweep."""
