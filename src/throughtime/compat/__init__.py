"""Names of older tools, thin over the public functions, with docstrings that lead to the new names."""
