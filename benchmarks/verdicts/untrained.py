"""Networks in PyTorch that are not trained, and some that are built with a known answer."""

from __future__ import annotations

from functools import partial

from . import models, tasks
from .cases import Case
from .models import starting as _start

ORTHOGONAL, GAUSSIAN, IDENTITY = models.orthogonal, models.gaussian, models.identity
UNTRAINED = [
    Case("untrained-tanh-contracting", tasks.first(30), 20, "tanh", start=_start(ORTHOGONAL, 0.5)),
    Case("untrained-tanh-critical", tasks.first(30), 20, "tanh", start=_start(ORTHOGONAL, 1.0)),
    Case("untrained-tanh-expanding", tasks.first(40), 20, "tanh", 32, start=_start(GAUSSIAN, 1.5)),
    Case(
        "untrained-tanh-chaotic",
        tasks.first(60),
        30,
        "tanh",
        64,
        start=_start(GAUSSIAN, 2.0),
        optimizer="sgd",
        rate=0.01,
    ),
    Case(
        "untrained-tanh-chaotic-mean",
        tasks.average(40),
        20,
        "tanh",
        64,
        head="mean",
        start=_start(GAUSSIAN, 2.5),
        optimizer="sgd",
        rate=0.01,
    ),
    Case("untrained-relu-contracting", tasks.first(30), 20, "relu", start=_start(ORTHOGONAL, 0.5)),
    Case("untrained-relu-identity", tasks.first(50), 30, "relu", start=_start(IDENTITY, 1.0)),
    Case("untrained-relu-default-every", tasks.delayed(30, 3), 10, "relu", head="every"),
    Case("untrained-lstm", tasks.first(40), 20, "lstm"),
    Case("untrained-lstm-forget-1", tasks.first(40), 20, "lstm", start=_start(models.forget_bias, 1.0)),
    Case("untrained-lstm-chrono", tasks.first(50), 30, "lstm", 32, start=_start(models.chrono, 50)),
    Case("untrained-lstm-chaotic", tasks.first(60), 30, "lstm", 32, start=_start(GAUSSIAN, 6.0)),
    Case("untrained-lstm-two-layers", tasks.first(30), 15, "lstm", layers=2),
    Case("untrained-lstm-both-last", tasks.first(40), 15, "lstm", both=True),
    Case("untrained-lstm-both-end", tasks.first(40), 15, "lstm", head="end", both=True),
    Case("untrained-lstm-both-mean", tasks.average(40), 15, "lstm", head="mean", both=True),
    Case("untrained-lstm-attention", tasks.first(40), 20, "lstm", head="attention"),
    Case("untrained-lstm-masked", tasks.padded(24, "first"), 10, "lstm"),
    Case("untrained-gru", tasks.first(40), 20, "gru"),
    Case("untrained-gru-chaotic", tasks.first(60), 30, "gru", 32, start=_start(GAUSSIAN, 6.0)),
    Case("untrained-gru-every", tasks.delayed(30, 5), 10, "gru", head="every"),
    Case("untrained-gru-both-attention", tasks.first(40), 15, "gru", head="attention", both=True),
    Case("untrained-tanh-both-masked", tasks.padded(24, "last"), 8, "tanh", both=True),
    Case("untrained-stacked", tasks.first(60), 25, both=True, make=lambda: models.Stacked(2, 16, 1)),
]
EXPANDING = [
    Case(
        f"expanding-relu-{name}",
        task,
        20,
        "relu",
        units,
        head=head,
        both=both,
        layers=layers,
        start=start,
        optimizer="sgd",
        rate=0.01,
    )
    for name, task, units, head, both, layers, start in [
        ("last", tasks.first(40), 16, "last", False, 1, _start(IDENTITY, 1.3)),
        ("gaussian", tasks.first(50), 32, "last", False, 1, _start(GAUSSIAN, 2.0)),
        ("mean", tasks.average(50), 16, "mean", False, 1, _start(IDENTITY, 1.3)),
        ("every", tasks.delayed(50, 5), 16, "every", False, 1, _start(IDENTITY, 1.25)),
        ("both", tasks.first(50), 16, "last", True, 1, _start(IDENTITY, 1.3)),
        ("attention", tasks.first(40), 16, "attention", False, 1, _start(IDENTITY, 1.3)),
        ("two-layers", tasks.first(40), 16, "last", False, 2, _start(IDENTITY, 1.15)),
        ("slow", tasks.first(60), 16, "last", False, 1, _start(IDENTITY, 1.1)),
        ("masked", tasks.padded(40, "first"), 16, "last", False, 1, _start(IDENTITY, 1.3)),
    ]
] + [
    Case("expanding-relu-adam", tasks.first(40), 20, "relu", start=_start(IDENTITY, 1.2)),
    Case(
        "expanding-relu-slight",
        tasks.first(20),
        10,
        "relu",
        start=_start(IDENTITY, 1.05),
        optimizer="sgd",
        rate=0.001,
    ),
    Case(
        "expanding-relu-overflow",
        tasks.first(60),
        20,
        "relu",
        start=_start(IDENTITY, 5.0),
        optimizer="sgd",
        rate=0.01,
    ),
    Case(
        "expanding-relu-built",
        tasks.average(40, positive=True),
        20,
        "relu",
        8,
        start=partial(models.counter, keep=1.2),
        optimizer="sgd",
        rate=0.01,
    ),
]
BUILT = [
    Case(
        "built-register-used",
        tasks.lagged(30, 10),
        10,
        "relu",
        start=partial(models.register, delay=10),
        use="uses",
    ),
    Case(
        "built-register-unused",
        tasks.lagged(30, 10),
        11,
        "relu",
        start=partial(models.register, delay=10),
        use="unused",
    ),
    Case(
        "built-register-every-used",
        tasks.delayed(30, 5, positive=True),
        5,
        "relu",
        head="every",
        start=partial(models.register, delay=5),
        use="uses",
    ),
    Case(
        "built-register-every-unused",
        tasks.delayed(30, 5, positive=True),
        7,
        "relu",
        head="every",
        start=partial(models.register, delay=5),
        use="unused",
    ),
    Case("built-latch", tasks.marked(40), 39, "lstm", 8, start=models.latch, use="uses"),
    Case(
        "built-latch-half-way",
        tasks.marked(50),
        25,
        "lstm",
        8,
        start=partial(models.latch, right=0.9),
        use="uses",
    ),
    Case("built-forgetful-lstm", tasks.last(30), 10, "lstm", start=models.forgetful, use="unused"),
    Case("built-forgetful-gru", tasks.first(30), 10, "gru", start=models.forgetful, use="unused"),
    Case("built-forgetful-tanh", tasks.last(30), 5, "tanh", start=models.forgetful, use="unused"),
    Case(
        "built-counter",
        tasks.average(40, positive=True),
        20,
        "relu",
        8,
        start=partial(models.counter, keep=1.0, error=40**-0.5 - 1),
        use="uses",
    ),
    Case(
        "built-leaky-counter",
        tasks.last(40),
        20,
        "relu",
        8,
        start=partial(models.counter, keep=0.5),
        use="unused",
    ),
]

NETWORKS = [*UNTRAINED, *EXPANDING, *BUILT]
