"""The memory that a capture needs, and the memory that is free."""
