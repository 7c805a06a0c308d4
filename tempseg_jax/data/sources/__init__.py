"""One module per dataset, which reads its archives or folders as records."""
