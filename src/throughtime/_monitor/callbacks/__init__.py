"""Callbacks for the frameworks' training loops; each is a thin class that calls a `Monitor`."""
