"""Tests of the documents, and the tools that make their generated parts."""
