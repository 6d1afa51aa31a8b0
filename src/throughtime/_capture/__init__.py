"""From a model and a batch to a labelled tree: one pass, what follows from it, its names."""
