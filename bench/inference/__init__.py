"""Comparisons of answers: how many a second, how soon, and what the page holds in memory."""
