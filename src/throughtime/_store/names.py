"""Folder names for layers: a layer may have any name, but a folder may not."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from throughtime._store.schema import COMMIT, STEP, is_name

_LONGEST = 120  # bytes of one part of a path


@lru_cache(maxsize=4096)
def folder_of(key: str) -> str:
    r"""Return the folder of a layer or variable: its path, if that is a valid folder.

    In an invalid part, invalid characters are replaced and a few digits of its hash are added.

    Examples
    --------
    >>> folder_of("encoder/lstm/hidden"), folder_of("a\\b/hidden")
    ('encoder/lstm/hidden', 'a_b~c62016d0/hidden')
    """
    *layers, name = key.split("/")
    # The root has an array `step`; a layer of that name gets another folder.
    return "/".join([*(_part(each, is_layer=True) for each in layers), _part(name, is_layer=False)])


def folder_of_layer(path: str) -> str:
    return "/".join(_part(each, is_layer=True) for each in path.split("/"))


def _part(name: str, *, is_layer: bool) -> str:
    is_free = not (is_layer and name == STEP) and name != COMMIT and not name.startswith(".")
    if is_free and is_name(name) and name.isprintable() and len(name.encode()) <= _LONGEST:
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
    return f"{readable}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
