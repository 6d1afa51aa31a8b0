"""Ways to damage a run, by accident and by intent; each takes a run's folder and a source of chance."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from throughtime._store.layout import Commit

Damage = Callable[[Path, random.Random], None]
OUTSIDE = "outside"  # a folder beside the run, with files that nothing may change


def files_of(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file())


def one_file(run: Path, rng: random.Random) -> Path:
    return rng.choice(files_of(run))


def sealed(run: Path, document: dict[str, Any]) -> None:
    """Write a commit whose checksum is right, as whoever means harm would."""
    try:
        metadata = document["consolidated_metadata"]["metadata"]
        shapes = {key: tuple(each["shape"]) for key, each in metadata.items() if "shape" in each}
        text = Commit(document).content(document["attributes"]["n_steps"], shapes).decode()
        if json.loads(text)["consolidated_metadata"] != document["consolidated_metadata"]:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        text = json.dumps(document)
    (run / "zarr.json").write_text(text)


def changed(file: Path, change: Callable[[bytearray], Any]) -> None:
    content = bytearray(file.read_bytes())
    file.write_bytes(bytes(change(content) or content))


def flip(run: Path, rng: random.Random) -> None:
    def one_bit(content: bytearray) -> None:
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)

    changed(one_file(run, rng), one_bit)


def cut(run: Path, rng: random.Random) -> None:
    changed(one_file(run, rng), lambda content: content[: rng.randrange(len(content) or 1)] or b"x")


def emptied(run: Path, rng: random.Random) -> None:
    one_file(run, rng).write_bytes(b"")


def longer(run: Path, rng: random.Random) -> None:
    changed(one_file(run, rng), lambda content: content + rng.randbytes(rng.randrange(1, 999)))


def garbage(run: Path, rng: random.Random) -> None:
    changed(one_file(run, rng), lambda content: rng.randbytes(len(content) or 9))


def exchanged(run: Path, rng: random.Random) -> None:
    one, other = one_file(run, rng), one_file(run, rng)
    one.write_bytes(other.read_bytes())


def missing(run: Path, rng: random.Random) -> None:
    one_file(run, rng).unlink()


def missing_folder(run: Path, rng: random.Random) -> None:
    shutil.rmtree(one_file(run, rng).parent)


def fifo(run: Path, rng: random.Random) -> None:
    file = one_file(run, rng)
    file.unlink()
    os.mkfifo(file)


def folder_for_file(run: Path, rng: random.Random) -> None:
    file = one_file(run, rng)
    file.unlink()
    file.mkdir()


def link_for_file(run: Path, rng: random.Random) -> None:
    file = one_file(run, rng)
    target = run.parent / OUTSIDE / file.name
    shutil.copy(file, target) if not target.exists() else None
    file.unlink()
    file.symlink_to(target)


def link_for_folder(run: Path, rng: random.Random) -> None:
    folder = one_file(run, rng).parent
    if folder != run:
        shutil.rmtree(folder)
        folder.symlink_to(run.parent / OUTSIDE)


NAMES = ["..", ".", "", "/etc", "../../outside", "a//b", "a\\b", "a\x1b[31m", "a\u2028b", "x" * 5000]
TEXTS = ["\x1b]0;owned\x07", "[/red]", "[" * 9999, '[{"name": 1}]', "days since x"]
SIZES = [-1, 2**31, 10**12, 2**63, 2.5, None, "9", [], True, 0]
VALUES = [None, [], {}, "x", -1, 0, 2**70, 1.5, ["step"], [["step"]], [0, 0], "../..", [[[[]]]], "NaN", True]
PLACES = [
    *("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "attributes"),
    *("dimension_names", "zarr_format", "node_type", "storage_transformers"),
]
CODECS = [
    [],
    [{"name": "gzip", "configuration": {"level": 1}}],
    [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 0}}],
    [{"name": "bytes", "configuration": {"endian": "big"}}],
    [{"name": "numcodecs.pickle"}],
    [{"name": "sharding_indexed", "configuration": {}}],
    [{"name": "vlen-utf8"}],
    [{"name": "bytes"}, {"name": "blosc"}],
]
PICKLED = {
    "zarr_format": 2,
    "shape": [3],
    "chunks": [3],
    "dtype": "|O",
    "compressor": None,
    "filters": [{"id": "pickle"}],
    "order": "C",
    "fill_value": None,
}


class Edit:
    """Changes a commit in one way, and seals it again."""

    def __init__(self, change: Callable[[dict[str, Any], dict[str, Any], random.Random], Any]) -> None:
        self._change, self.__name__ = change, f"edit {change.__name__}"

    def __call__(self, run: Path, rng: random.Random) -> None:
        document = json.loads((run / "zarr.json").read_text())
        document["attributes"].pop("checksum", None)
        result = self._change(document, document["consolidated_metadata"]["metadata"], rng)
        sealed(run, document if result is None else result)


def _array(nodes: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return nodes[rng.choice([key for key, each in nodes.items() if each["node_type"] == "array"])]


def any_value(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    nodes[rng.choice(list(nodes))][rng.choice(PLACES)] = rng.choice(VALUES)


def any_size(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    array = _array(nodes, rng)
    sizes = rng.choice([array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"]])
    sizes[rng.randrange(len(sizes))] = rng.choice(SIZES)


def alike_and_huge(document: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    """Sizes that agree with each other, and with nothing on the disk."""
    dim, size = rng.choice(_array(nodes, rng)["dimension_names"]), rng.choice([10**4, 10**8, 10**12])
    for each in nodes.values():
        if dim in each.get("dimension_names", []):
            place = each["dimension_names"].index(dim)
            each["shape"][place] = size
            if rng.random() < 0.5:
                each["chunk_grid"]["configuration"]["chunk_shape"][place] = size
    if dim == "step":
        document["attributes"]["n_steps"] = size


def any_name(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    key = rng.choice(list(nodes))
    *parts, last = key.split("/")
    nodes["/".join([*parts, rng.choice([*NAMES, f"{last}/x"])])] = nodes.pop(key)


def any_own_name(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    node = nodes[rng.choice(list(nodes))]
    node["attributes"]["throughtime_name"] = rng.choice([*NAMES, "step", "lstm", 3, None])


def any_dim(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    dims = _array(nodes, rng)["dimension_names"]
    dims[rng.randrange(len(dims))] = rng.choice([*NAMES, "step", "time", 3, None])


def any_codecs(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    _array(nodes, rng)["codecs"] = rng.choice(CODECS)


def any_dtype(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    dtypes = ["object", "|O", "string", "float16", "int8", "complex128", "M8[ns]", "V4", {"name": "|O"}]
    _array(nodes, rng)["data_type"] = rng.choice(dtypes)


def a_pickled_node(_: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    nodes[f"{rng.choice(list(nodes)).partition('/')[0]}/evil"] = dict(PICKLED)


def any_attribute(document: Any, nodes: dict[str, Any], rng: random.Random) -> None:
    attributes = rng.choice([document, *nodes.values()])["attributes"]
    known = rng.choice([*attributes, "alarms", "n_steps", "checksums", "alarms_off", "scale_factor", "units"])
    attributes[known] = rng.choice([*VALUES, *TEXTS])


def any_root(document: Any, _: Any, rng: random.Random) -> Any:
    key = rng.choice(list(document))
    document[key] = rng.choice(VALUES)
    return rng.choice([document, document, None, [], {}, {key: {}}]) or {}


def zip_of(run: Path, rng: random.Random) -> None:
    """Put the run's folder into a zip of its name."""
    packed = shutil.make_archive(f"{run}-zip", "zip", run)
    shutil.rmtree(run)
    Path(packed).rename(run)
    if rng.random() < 0.8:
        rng.choice([_cut_zip, _flipped_zip, _bomb, _linked, _twice])(run, rng)


def _cut_zip(run: Path, rng: random.Random) -> None:
    content = run.read_bytes()
    run.write_bytes(content[: rng.randrange(len(content))] + content[-rng.randrange(1, 100) :])


def _flipped_zip(run: Path, rng: random.Random) -> None:
    content = bytearray(run.read_bytes())
    for _ in range(rng.randrange(1, 4)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    run.write_bytes(content)


def _bomb(run: Path, rng: random.Random) -> None:
    with zipfile.ZipFile(run) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    bombed = rng.choice([name for name in inside if not name.endswith("/")])
    with zipfile.ZipFile(run, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in inside.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
                for _ in range(rng.choice([20, 300]) if name == bombed else 0):
                    member.write(b" " * 2**20)


def _linked(run: Path, rng: random.Random) -> None:
    with zipfile.ZipFile(run, "a") as archive:
        entry = zipfile.ZipInfo("lstm/link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")


def _twice(run: Path, rng: random.Random) -> None:
    with zipfile.ZipFile(run, "a") as archive:
        name = rng.choice(archive.namelist())
        archive.fp.write(b"")  # type: ignore[union-attr]
        archive.NameToInfo.pop(name)
        archive.writestr(name, pickle.dumps(name))


FILES: list[Damage] = [
    *(flip, cut, emptied, longer, garbage, exchanged, missing, missing_folder, fifo, folder_for_file),
    *(link_for_file, link_for_folder),
]
EDITS: list[Damage] = [
    *map(Edit, (any_value, any_size, alike_and_huge, any_name, any_own_name, any_dim, any_codecs, any_dtype)),
    *map(Edit, (a_pickled_node, any_attribute, any_root)),
]
DAMAGES: list[Damage] = [*FILES, *EDITS, zip_of]
