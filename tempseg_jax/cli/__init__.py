"""Code that the commands share: set-up, error messages, arguments, processes."""
