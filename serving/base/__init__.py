"""serving/base."""
