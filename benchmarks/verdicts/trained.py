"""Networks in PyTorch that are trained here, half of the way or until they solve their task."""

from __future__ import annotations

from . import models, tasks
from .cases import Case
from .models import starting as _start

ORTHOGONAL, GAUSSIAN, IDENTITY = models.orthogonal, models.gaussian, models.identity


def _trained(name, task, lag, cell, until, **more):
    more = {"rate": 1e-2, "clip": 1.0, "until": until, **more}
    return Case(f"trained-{name}", task, lag, cell, **more)


SOLVED, HALF, NOTHING = 0.03, 0.5, 0.0
CHRONO = _start(models.chrono, 20)
NETWORKS = [
    _trained("lstm-chrono-50", tasks.first(50), 49, "lstm", 0.005, units=32, start=_start(models.chrono, 50)),
    _trained("lstm-first", tasks.first(20), 19, "lstm", SOLVED, start=CHRONO),
    _trained("lstm-first-half", tasks.first(20), 19, "lstm", HALF, start=CHRONO),
    _trained("lstm-sign", tasks.sign(20), 19, "lstm", SOLVED, start=CHRONO),
    _trained("lstm-last", tasks.last(30), 10, "lstm", SOLVED),
    _trained("lstm-unrelated", tasks.unrelated(30), 10, "lstm", NOTHING, updates=200),
    _trained("lstm-mean", tasks.average(30), 15, "lstm", SOLVED, head="mean"),
    _trained("lstm-attention", tasks.first(20), 10, "lstm", SOLVED, head="attention", start=CHRONO),
    _trained("lstm-every", tasks.delayed(20, 3), 3, "lstm", SOLVED, head="every"),
    _trained("lstm-every-half", tasks.delayed(20, 3), 6, "lstm", HALF, head="every"),
    _trained("lstm-masked-first", tasks.padded(20, "first"), 11, "lstm", SOLVED, start=CHRONO),
    _trained("lstm-masked-last", tasks.padded(20, "last"), 8, "lstm", SOLVED),
    _trained(
        "lstm-two-layers",
        tasks.first(12),
        11,
        "lstm",
        SOLVED,
        layers=2,
        start=_start(models.forget_bias, 2.0),
    ),
    _trained("lstm-both-last", tasks.first(20), 8, "lstm", SOLVED, both=True),
    _trained("lstm-both-end", tasks.average(20), 6, "lstm", SOLVED, head="end", both=True),
    _trained("lstm-two-layers-last", tasks.last(20), 8, "lstm", SOLVED, layers=2),
    _trained("gru-first", tasks.first(20), 19, "gru", SOLVED),
    _trained("gru-first-half", tasks.first(20), 19, "gru", HALF),
    _trained("gru-last", tasks.last(30), 10, "gru", SOLVED),
    _trained("gru-unrelated", tasks.unrelated(30), 10, "gru", NOTHING, updates=200),
    _trained("gru-every", tasks.delayed(20, 4), 4, "gru", SOLVED, head="every"),
    _trained("gru-both-mean", tasks.average(30), 10, "gru", SOLVED, head="mean", both=True),
    _trained("gru-attention", tasks.first(20), 10, "gru", SOLVED, head="attention"),
    _trained("gru-masked-last", tasks.padded(20, "last"), 8, "gru", SOLVED),
    _trained(
        "gru-stacked", tasks.average(20), 6, "gru", SOLVED, both=True, make=lambda: models.Stacked(2, 12, 1)
    ),
    _trained("tanh-last", tasks.last(30), 10, "tanh", SOLVED),
    _trained("tanh-mean", tasks.average(20), 10, "tanh", SOLVED, rate=3e-3, start=_start(ORTHOGONAL, 1.0)),
    _trained("tanh-every", tasks.delayed(20, 3), 3, "tanh", SOLVED, head="every", rate=5e-3),
    _trained("tanh-first", tasks.first(10), 9, "tanh", SOLVED, rate=3e-3, start=_start(ORTHOGONAL, 1.0)),
    _trained("tanh-unrelated", tasks.unrelated(30), 10, "tanh", NOTHING, updates=200),
    _trained("tanh-chaotic", tasks.last(40), 15, "tanh", HALF, units=32, start=_start(GAUSSIAN, 2.0)),
    _trained("relu-mean", tasks.average(20), 10, "relu", SOLVED, rate=1e-3, start=_start(IDENTITY, 1.0)),
    _trained(
        "relu-mean-sgd",
        tasks.average(20),
        10,
        "relu",
        HALF,
        optimizer="sgd",
        rate=3e-3,
        start=_start(IDENTITY, 1.0),
    ),
    _trained("relu-last", tasks.last(30), 10, "relu", SOLVED, rate=3e-3, start=_start(ORTHOGONAL, 0.7)),
    _trained("relu-every", tasks.delayed(20, 2), 2, "relu", SOLVED, head="every", rate=3e-3),
    _trained(
        "relu-expanding",
        tasks.last(40),
        20,
        "relu",
        NOTHING,
        updates=100,
        optimizer="sgd",
        rate=0.01,
        start=_start(IDENTITY, 1.25),
    ),
    _trained(
        "relu-expanding-adam",
        tasks.last(40),
        20,
        "relu",
        NOTHING,
        updates=300,
        rate=1e-3,
        start=_start(IDENTITY, 1.15),
    ),
]
