"""What Graft is compared with: the libraries themselves, used as their own documentation says."""
