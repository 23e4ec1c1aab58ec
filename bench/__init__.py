"""Comparisons with the libraries that people use today, both sides measured in the same run."""
