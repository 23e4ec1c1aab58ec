"""tests/training/publish."""
