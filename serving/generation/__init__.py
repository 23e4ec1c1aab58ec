"""serving/generation."""
