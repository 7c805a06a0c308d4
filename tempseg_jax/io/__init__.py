"""Files on disk: atomic replacement, JSON, downloads."""
