"""tests/ui/train."""
