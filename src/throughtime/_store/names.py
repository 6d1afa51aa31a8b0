"""Folders for names: a layer may be called anything, and a folder may not."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from throughtime._store.schema import COMMIT, STEP, is_name

_LONGEST = 120  # bytes: parts of a path add up


@lru_cache(maxsize=4096)
def folder_of(key: str) -> str:
    r"""Give the folder of a layer or variable: its path, where that can be one.

    A part that cannot is replaced by what of it can, and a few digits of its hash.

    Examples
    --------
    >>> folder_of("encoder/lstm/hidden"), folder_of("a\\b/hidden")
    ('encoder/lstm/hidden', 'a_b~c62016d0/hidden')
    """
    *layers, name = key.split("/")
    # The root's own `step` is an array; a layer of that name lies beside it.
    return "/".join([*(_part(each, is_layer=True) for each in layers), _part(name, is_layer=False)])


def folder_of_layer(path: str) -> str:
    return "/".join(_part(each, is_layer=True) for each in path.split("/"))


def _part(name: str, *, is_layer: bool) -> str:
    is_free = not (is_layer and name == STEP) and name != COMMIT and not name.startswith(".")
    if is_free and is_name(name) and name.isprintable() and len(name.encode()) <= _LONGEST:
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
    return f"{readable}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
