"""The user's data: batches, structures of arrays, random states, and functions that restore state."""
