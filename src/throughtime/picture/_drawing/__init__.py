"""Theme, scale, colours and marks, which every plot needs before it is drawn."""
