"""What memory a capture needs, and what there is."""
