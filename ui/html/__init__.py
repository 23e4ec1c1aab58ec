"""ui/html."""
