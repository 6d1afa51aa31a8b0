"""Functions of older tools: `see_rnn` has their names, `_classic` those that throughtime still exports."""
