"""training/publish."""
