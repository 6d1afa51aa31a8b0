"""What every room may use: text, the memory that is free, files that are written at once."""
