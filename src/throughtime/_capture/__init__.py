"""Captures a model on a batch as a labelled tree: the pass, the solution, the names."""
