"""Comparisons with the libraries that people use today, in one run; and the data they use."""
