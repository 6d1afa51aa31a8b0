"""What every drawing needs before it is drawn: theme, scale, colours, marks."""
