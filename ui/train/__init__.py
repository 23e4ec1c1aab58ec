"""ui/train."""
