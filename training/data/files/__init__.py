"""training/data/files."""
