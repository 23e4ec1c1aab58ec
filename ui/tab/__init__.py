"""ui/tab."""
