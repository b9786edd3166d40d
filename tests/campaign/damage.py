# pyright: basic
"""Ways to damage a file, by description: its bytes, its place, entries of JSON, tensors."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

# Damage the file at a path.
Way = Callable[[Random, Path], object]
Ways = dict[str, Way]
Edit = bytes | Callable[[Random, bytes], bytes]
DEEP = 100_000


def edits(**changes: Edit) -> Ways:
    """Return ways that replace the content of a file."""
    return {name: partial(edit, change) for name, change in changes.items()}


def edit(change: Edit, rng: Random, path: Path) -> None:
    path.write_bytes(change if isinstance(change, bytes) else change(rng, path.read_bytes()))


def flipped(rng: Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


FLIPPED = edits(a_bit_flipped=flipped)
EMPTY = edits(empty=b"", compressed=lambda rng, c: gzip.compress(c, mtime=0))
SPOILT = EMPTY | edits(
    zeros=lambda rng, c: bytes(len(c)),
    random_bytes=lambda rng, c: rng.randbytes(len(c) or 1),
    truncated=lambda rng, c: c[: rng.randrange(1, max(len(c.rstrip()), 2))],
)
APPENDED = edits(appended=lambda rng, c: c + rng.randbytes(rng.randrange(1, 40)))
NOT_JSON = edits(
    **{"null": b"null", "a list": b"[1, 2]", "a number": b"1e999"},
    nested_lists=b"[" * DEEP + b"]" * DEEP,
    nested_objects=b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    followed_by_another=lambda rng, c: c + b"{}",
    latin_1=lambda rng, c: c.rstrip()[:-1] + b', "\xe9": 1}',
)


# Places


def replace(make: Callable[[Path], object], rng: Random, path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def move(rng: Random, path: Path) -> None:
    path.symlink_to(path.rename(path.parents[1] / f"moved-{path.name}"))


def add(content: bytes, rng: Random, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def added(*contents: bytes) -> Ways:
    return {f"added as {content[:30]!r}": partial(add, content) for content in contents}


def links(*targets: str) -> Ways:
    return {
        f"a link to {target}": partial(replace, lambda path, target=target: path.symlink_to(target))
        for target in targets
    }


LINKED: Ways = {"a link": move}
MISSING = links("nowhere") | {
    "missing": partial(replace, lambda path: None),
    "a link to itself": partial(replace, lambda path: path.symlink_to(path.name)),
}
PIPE = {"a folder": partial(replace, Path.mkdir), "a pipe": partial(replace, os.mkfifo)}
PLACES = MISSING | PIPE | links("/dev/null", "/dev/zero", "/dev/urandom", "/dev/full")


# Entries of JSON, and of what other files contain


class Format(NamedTuple):
    """Functions that read a structure from a file and write it."""

    read: Callable[[Path], Any]
    write: Callable[[Path, Any], object]


JSON = Format(
    lambda path: json.loads(path.read_bytes()),
    lambda path, value: path.write_text(json.dumps(value), encoding="utf-8"),
)


def change(
    file: Format, in_place: Callable[[Random, Any], object], rng: Random, path: Path
) -> None:
    found = file.read(path)
    in_place(rng, found)
    file.write(path, found)


def changes(file: Format, **in_place: Callable[[Random, Any], object]) -> Ways:
    """Return ways to change the structure in a file in place."""
    return {name: partial(change, file, each) for name, each in in_place.items()}


def merged(*changes: dict[str, Any]) -> Ways:
    """Return ways to set entries of a JSON object, or of the objects in it."""
    return {
        f"{number}: with {new!a:.70}": partial(change, JSON, partial(merge, new))
        for number, new in enumerate(changes)
    }


def merge(new: dict[str, Any], rng: Random, found: dict[str, Any]) -> None:
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = found[key] | value if both else value


REMOVED, ANOTHER = object(), object()
WRONG: list[Any] = [
    *(ANOTHER, None, True, "xx", "", "9" * 50, "\ud800", [], [1], {}, {"a": 1}),
    *(-1, 1.5, float("nan"), float("-inf"), 10**60),
]


def entries(*skip: str, file: Format = JSON, wrong: Sequence[Any] = (*WRONG, REMOVED)) -> Ways:
    """Return ways to give any entry another value, type or range, or to remove it.

    Entries with the names in skip and those below them are not changed.
    """
    names = {id(REMOVED): "removed", id(ANOTHER): "another"}
    return {
        f"an entry is {names.get(id(v), ascii(v)[:20])}, try {number}": partial(
            change, file, partial(put, v, skip)
        )
        for v in wrong
        for number in (1, 2)
    }


def put(value: Any, skip: Sequence[str], rng: Random, found: Any) -> None:
    """Give an entry a value that it may not have."""
    inside, key = rng.choice([p for p in places_in(found, skip) if is_wrong(value, *p)])
    if value is REMOVED:
        del inside[key]
    elif value is not ANOTHER:
        inside[key] = value
    elif isinstance(inside[key], str):
        inside[key] += "x"
    else:
        inside[key] = not inside[key] if inside[key] in (0, 1) else inside[key] + 1


def places_in(found: Any, skip: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Yield every dict or list inside a structure, with each of its keys."""
    for key in [*found] if isinstance(found, dict) else range(len(found)):
        if key not in skip:
            yield found, key
            if isinstance(found[key], dict | list):
                yield from places_in(found[key], skip)


def is_wrong(value: Any, inside: Any, key: Any) -> bool:
    """Return whether an entry may not have a value."""
    old = inside[key]
    if value is REMOVED or value is ANOTHER:
        return isinstance(inside, dict) if value is REMOVED else isinstance(old, int | float | str)
    return type(value) is not type(old) or (value != old and value != 1.5)


# Tensors


def read_header(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def write_header(path: Path, header: Any) -> None:
    """Replace the header of a safetensors file, without a change of what follows it."""
    content, text = path.read_bytes(), json.dumps(header).encode()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(safetensors.numpy.save(contiguous))


TENSOR_FILE = Format(lambda path: safetensors.numpy.load(path.read_bytes()), write_tensors)


def tensor(make: Callable[[str, Any], dict[str, Any]]) -> Way:
    """Return a way to replace one tensor by others."""

    def swap(rng: Random, found: dict[str, Any]) -> None:
        name = rng.choice(sorted(found))
        found |= make(name, found.pop(name))

    return partial(change, TENSOR_FILE, swap)


ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "a row too many": lambda t: np.concatenate([t, t[:1]]),
    "a row too few": lambda t: t[:-1],
    "one more axis": lambda t: t[None],
    "a scalar": lambda t: np.ones((), np.float32),
    "NaN": lambda t: np.where(np.arange(t.shape[-1]), t, np.float32("nan")),
    "inf": lambda t: np.where(np.arange(t.shape[-1]), t, np.float32("inf")),
    **{f"dtype {name}": lambda t, name=name: t.astype(name) for name in ("i8", "u1", "?", "c8")},
}
TENSORS: Ways = {
    **{name: tensor(lambda n, t, make=make: {n: make(t)}) for name, make in ARRAYS.items()},
    "a missing tensor": tensor(lambda name, t: {}),
    "a renamed tensor": tensor(lambda name, t: {f"{name}.copy": t}),
    "a tensor twice": tensor(lambda name, t: {name: t, f"{name}.copy": t}),
    **entries("__metadata__", file=Format(read_header, write_header)),
    **edits(
        a_huge_header=lambda rng, c: b"\xff" * 8 + c[8:], no_header=lambda rng, c: bytes(8) + c
    ),
}


def damaged(kind: str = "", *skip: str) -> Ways:
    """Return ways to damage any file, and what is in it if it is json or safetensors."""
    inside = {"json": NOT_JSON | entries(*skip, wrong=WRONG), "safetensors": TENSORS}
    return SPOILT | PLACES | inside.get(kind, {})
