"""training/data/inspect."""
