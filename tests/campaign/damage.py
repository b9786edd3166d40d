"""Ways to damage a file: its bytes, its place in the folder, its JSON, its tensors."""

import copy
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import safetensors.numpy

from tinygpt_np.storage.parameters import Tensors

Leaf = tuple[str | int, ...]

# Bytes


def truncated(rng: Random, content: bytes) -> bytes:
    return content[: rng.randrange(1, max(len(content), 2))]


def flipped(rng: Random, content: bytes) -> bytes:
    """Return the content with one bit changed."""
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def emptied(rng: Random, content: bytes) -> bytes:
    return b""


def extended(rng: Random, content: bytes) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 40))


def zeroed(rng: Random, content: bytes) -> bytes:
    return bytes(len(content))


def zipped(rng: Random, content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def shuffled(rng: Random, content: bytes) -> bytes:
    return rng.randbytes(len(content) or 1)


BYTES: dict[str, Callable[[Random, bytes], bytes]] = {
    "truncated": truncated,
    "with one bit flipped": flipped,
    "emptied": emptied,
    "with bytes appended": extended,
    "with all bytes zero": zeroed,
    "compressed by gzip": zipped,
    "with random bytes": shuffled,
}


def damage_bytes(rng: Random, path: Path, *ways: str) -> str:
    """Damage a file in one of the ways, by default any; return what was done."""
    way = rng.choice(ways or tuple(BYTES))
    path.write_bytes(BYTES[way](rng, path.read_bytes()))
    return f"{path.name} {way}"


# Places


def clear(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def to_nothing(path: Path) -> None:
    clear(path)


def to_folder(path: Path) -> None:
    clear(path)
    path.mkdir()


def to_fifo(path: Path) -> None:
    clear(path)
    os.mkfifo(path)


def to_dangling_link(path: Path) -> None:
    clear(path)
    path.symlink_to("nowhere")


def to_circular_link(path: Path) -> None:
    clear(path)
    path.symlink_to(path.name)


PLACES: dict[str, Callable[[Path], None]] = {
    "missing": to_nothing,
    "a folder": to_folder,
    "a FIFO": to_fifo,
    "a dangling link": to_dangling_link,
    "a link to itself": to_circular_link,
}


def displace(rng: Random, path: Path, *ways: str) -> str:
    """Put something else in the place of a file; return what."""
    way = rng.choice(ways or tuple(PLACES))
    PLACES[way](path)
    return f"{path.name} is {way}"


def behind_link(path: Path) -> None:
    """Move a file or folder away, and put a link to it in its place, which is harmless."""
    target = path.with_name(f"moved-{path.name}")
    path.rename(target)
    path.symlink_to(target.name)


# JSON

NAN, HUGE = float("nan"), 10**30
DEEP = 100_000
# One of each kind; a leaf is replaced by one of another type than its own.
VALUES: list[Any] = [
    *(None, True, "x", "", [], {}, [1], {"a": 1}, -1, 1.5, NAN, float("-inf"), HUGE, -HUGE),
    *("9" * 50, "\ud800", "../../outside", [[[[]]]]),
]


def leaves(value: Any, place: Leaf = ()) -> Iterator[Leaf]:
    """Yield the places of all values in a JSON value that have no values in them."""
    if isinstance(value, dict | list) and value:
        found = cast(Any, value)
        for key, inner in found.items() if isinstance(value, dict) else enumerate(found):
            yield from leaves(inner, (*place, key))
    else:
        yield place


def at(value: Any, place: Leaf) -> Any:
    for key in place:
        value = value[key]
    return value


def replaced(value: Any, place: Leaf, new: Any) -> Any:
    """Return a copy of a JSON value with another value at a place."""
    if not place:
        return new
    changed = copy.deepcopy(value)
    at(changed, place[:-1])[place[-1]] = new
    return changed


def without(value: Any, place: Leaf) -> Any:
    changed = copy.deepcopy(value)
    del at(changed, place[:-1])[place[-1]]
    return changed


def wrong_value(rng: Random, old: Any) -> Any:
    """Return a value that no reader could take for the old one: of another JSON type."""

    def kind(value: Any) -> str:
        return json.dumps(value)[0].strip("-0123456789IN") or "a number"

    return rng.choice([value for value in VALUES if kind(value) != kind(old)])


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def change_leaf(path: Path, place: Leaf, new: Any) -> str:
    write_json(path, replaced(read_json(path), place, new))
    return f"{path.name}: {'.'.join(map(str, place))} = {short(new)}"


def drop_leaf(path: Path, place: Leaf) -> str:
    write_json(path, without(read_json(path), place))
    return f"{path.name} without {'.'.join(map(str, place))}"


def wreck_json(rng: Random, path: Path) -> str:
    """Write something that is no JSON object, or none at all."""
    content = path.read_bytes()
    other = {
        "null": b"null",
        "a list": b"[1, 2]",
        "a text": b'"config"',
        "a number": b"1e999",
        "cut off": content.rstrip()[: -rng.randrange(1, 20)],
        "followed by another": content + b"{}",
        "in single quotes": content.replace(b'"', b"'"),
        "deeply nested lists": b"[" * DEEP + b"]" * DEEP,
        "deeply nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "latin-1": content.rstrip()[:-1] + b', "\xe9": 1}',
        "a number of too many digits": b'{"a": ' + b"9" * 10_000 + b"}",
    }
    kind = rng.choice(list(other))
    path.write_bytes(other[kind])
    return f"{path.name} is {kind}"


def short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


# Tensors


def read_tensors(path: Path) -> Tensors:
    return safetensors.numpy.load(path.read_bytes())


def write_tensors(path: Path, tensors: Tensors) -> None:
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(safetensors.numpy.save(contiguous))


def damage_tensor(rng: Random, tensors: Tensors) -> str:
    """Damage one of the tensors so that no model can have it; return what was done."""
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    not_finite = tensor.copy()
    not_finite.flat[rng.randrange(tensor.size)] = rng.choice([np.nan, np.inf, -np.inf])
    other: dict[str, np.ndarray] = {
        "with a row too many": np.concatenate([tensor, tensor[:1]]),
        "with a row too few": tensor[:-1],
        "without rows": tensor[:0],
        "with an axis more": tensor[None],
        "flat": tensor.reshape(-1) if tensor.ndim > 1 else tensor.reshape(1, -1),
        "a scalar": np.ones((), np.float32),
        "of integers": tensor.astype(np.int64),
        "of bytes": tensor.astype(np.uint8),
        "of booleans": tensor > 0,
        "not finite": not_finite,
    }
    way = rng.choice([*other, "missing", "renamed", "there under another name too"])
    if way in other:
        tensors[name] = other[way]
    elif way == "missing":
        del tensors[name]
    else:
        tensors[f"{name}.copy"] = tensors.pop(name) if way == "renamed" else tensor
    return f"{name} is {way}"


def damage_header(rng: Random, path: Path) -> str:
    """Damage the header of a file of safetensors so that it does not fit what follows."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    start, end = entry["data_offsets"]
    other: dict[str, dict[str, Any]] = {
        "offsets past the end": {"data_offsets": [start + len(data), end + len(data)]},
        "offsets that overlap others": {"data_offsets": [start + 4, end + 4]},
        "negative offsets": {"data_offsets": [-4, end]},
        "offsets in reverse": {"data_offsets": [end, start]},
        "huge offsets": {"data_offsets": [0, 2**63]},
        "a huge shape": {"shape": [2**40, 2**40]},
        "a negative shape": {"shape": [-1, *entry["shape"]]},
        "a shape that is no list": {"shape": "x"},
        "a shape of another size": {"shape": [*entry["shape"], 2]},
        "an unknown dtype": {"dtype": "F99"},
        "a dtype that is no text": {"dtype": 32},
        "a dtype of another size": {"dtype": "F64"},
    }
    way = rng.choice([*other, "no entry", "a length past the end", "a huge length", "length zero"])
    if way in other:
        header[name] = {**entry, **other[way]}
    elif way == "no entry":
        del header[name]
    text = json.dumps(header).encode()
    size = {"a length past the end": len(text) + len(data) + 1, "a huge length": 2**63}
    size["length zero"] = 0
    path.write_bytes(size.get(way, len(text)).to_bytes(8, "little") + text + data)
    return f"{path.name}: {name} has {way}"
