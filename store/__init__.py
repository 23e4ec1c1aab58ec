"""What lasts: bases, adapters and run folders on disk. The only package that knows paths."""
