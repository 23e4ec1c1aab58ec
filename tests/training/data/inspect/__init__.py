"""tests/training/data/inspect."""
