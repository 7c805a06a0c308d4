"""One module per dataset: from its archives or folders to records on disk."""
