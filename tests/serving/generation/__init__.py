"""tests/serving/generation."""
