"""tests/training/estimate."""
