"""tests/training/data/files."""
