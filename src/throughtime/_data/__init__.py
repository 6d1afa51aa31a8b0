"""Arrays that users hand over: batches, structures of arrays, random states, and putting things back."""
