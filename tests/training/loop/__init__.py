"""tests/training/loop."""
