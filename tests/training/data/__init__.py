"""tests/training/data."""
