"""training/estimate."""
