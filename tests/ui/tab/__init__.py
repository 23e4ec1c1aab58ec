"""tests/ui/tab."""
