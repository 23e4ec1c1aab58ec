"""Find, check, load and tokenize base models; check adapters for them."""
