"""What every command of the project does before and after its own work."""
