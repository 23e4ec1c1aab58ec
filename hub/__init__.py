"""Models and data sets of the Hugging Face Hub and of the package index, downloaded and checked."""
