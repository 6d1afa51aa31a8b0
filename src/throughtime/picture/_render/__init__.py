"""Renderers of a `Picture`, with a module for each output; they know nothing of captures."""
