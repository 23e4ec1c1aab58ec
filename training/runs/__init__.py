"""training/runs."""
