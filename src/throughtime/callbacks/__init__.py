"""Native callbacks of the frameworks' training loops, each a thin class over `Monitor`."""
