"""Pictures drawn: one module an output. They read `picture` and know nothing of captures."""
