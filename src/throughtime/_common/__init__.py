"""Texts and tables, files that are written at once, and the memory that is free: every room may use them."""
