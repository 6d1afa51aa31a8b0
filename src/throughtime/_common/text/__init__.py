"""Text from data, and tables as text, terminal and HTML from one description."""
