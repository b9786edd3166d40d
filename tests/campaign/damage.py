"""Actions that damage files: their bytes, their place in the folder, JSON, tensors, arguments."""

import copy
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy
from campaign.faults import Action, Damage

from tinygpt_np.storage.parameters import Tensors

NAN, HUGE, DEEP = float("nan"), 10**30, 100_000
Leaf = tuple[str | int, ...]
# Return new content for a file.
Change = Callable[[Random, bytes], bytes]


def one_of(*actions: Action) -> Action:
    return lambda rng, folder: rng.choice(actions)(rng, folder)


def nothing(rng: Random, folder: Path) -> Damage:
    return Damage("nothing")


# Bytes


def truncated(rng: Random, content: bytes) -> bytes:
    return content[: rng.randrange(1, max(len(content) - 1, 2))]


def flipped(rng: Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


BROKEN: dict[str, Change] = {
    "emptied": lambda rng, content: b"",
    "with all bytes zero": lambda rng, content: bytes(len(content)),
    "compressed by gzip": lambda rng, content: gzip.compress(content, mtime=0),
    "with random bytes": lambda rng, content: rng.randbytes(len(content) or 1),
}
SPOILT: dict[str, Change] = {**BROKEN, "truncated": truncated}
BYTES: dict[str, Change] = {
    **SPOILT,
    "with one bit flipped": flipped,
    "with bytes appended": lambda rng, content: content + rng.randbytes(rng.randrange(1, 40)),
}


def rewritten(paths: Sequence[str], ways: Mapping[str, Change | bytes]) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        path, way = folder / rng.choice(paths), rng.choice(list(ways))
        change = ways[way]
        path.write_bytes(change if isinstance(change, bytes) else change(rng, path.read_bytes()))
        return Damage(f"{path.name} {way}", names=(path.name,))

    return action


# Places


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


PLACES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
DEVICES: dict[str, Callable[[Path], object]] = {
    f"/dev/{name}": lambda path, name=name: path.symlink_to(f"/dev/{name}")
    for name in ("null", "zero", "urandom", "full")
}


def displaced(*paths: str, ways: Iterable[str] = PLACES) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        path, way = folder / rng.choice(paths), rng.choice(list(ways))
        remove(path)
        (PLACES | DEVICES)[way](path)
        return Damage(f"{path.name} is {way}", names=(path.name,))

    return action


def linked(*paths: str) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        path = folder / rng.choice(paths)
        target = folder / f"moved-{path.name}"
        path.rename(target)
        path.symlink_to(os.path.relpath(target, path.parent))
        return Damage(f"{path.name} is a link")

    return action


def added(files: Mapping[str, Sequence[bytes]]) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        name = rng.choice(list(files))
        content = rng.choice(files[name])
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return Damage(f"{name} is {content[:40]!r}", names=(Path(name).name,))

    return action


# JSON

# Values of every type; a value is replaced by one of another type.
VALUES: list[Any] = [
    *(None, True, "x", "", [], {}, [1], {"a": 1}, -1, 1.5, NAN, float("-inf"), HUGE, -HUGE),
    *("9" * 50, "\ud800", "../../outside", [[[[]]]]),
]
REMOVED = object()


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def type_of(value: Any) -> str:
    return json.dumps(value)[0].strip("-0123456789IN") or "a number"


def json_values(path: str, leaves: Mapping[Leaf, Sequence[Any]]) -> Action:
    """Set an entry of a JSON file to one of its values, or remove it."""

    def action(rng: Random, folder: Path) -> Damage:
        leaf = rng.choice(list(leaves))
        new, changed = rng.choice(leaves[leaf]), copy.deepcopy(read_json(folder / path))
        inner = changed
        for key in leaf[:-1]:
            inner = inner[key]
        if new is REMOVED:
            del inner[leaf[-1]]
        else:
            inner[leaf[-1]] = new
        write_json(folder / path, changed)
        shown = "nothing" if new is REMOVED else ascii(new)[:40]
        return Damage(f"{path}: {'.'.join(map(str, leaf))} = {shown}")

    return action


def json_types(path: str, *leaves: Leaf) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        leaf, old = rng.choice(leaves), read_json(folder / path)
        for key in leaf:
            old = old[key]
        values = [value for value in VALUES if type_of(value) != type_of(old)]
        return json_values(path, {leaf: values})(rng, folder)

    return action


def json_removed(path: str, *leaves: Leaf) -> Action:
    return json_values(path, {leaf: [REMOVED] for leaf in leaves})


def json_whole(path: str, values: Mapping[str, Callable[[Any], Any]]) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        way = rng.choice(list(values))
        write_json(folder / path, values[way](read_json(folder / path)))
        return Damage(f"{path} with {way}")

    return action


def wrecked(*paths: str) -> Action:
    """Write something that is not JSON, or not an object."""
    return rewritten(
        paths,
        {
            "null": b"null",
            "a list": b"[1, 2]",
            "a string": b'"config"',
            "a number": b"1e999",
            "cut off": lambda rng, content: content.rstrip()[: -rng.randrange(1, 20)],
            "followed by another": lambda rng, content: content + b"{}",
            "in single quotes": lambda rng, content: content.replace(b'"', b"'"),
            "deeply nested lists": b"[" * DEEP + b"]" * DEEP,
            "deeply nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
            "latin-1": lambda rng, content: content.rstrip()[:-1] + b', "\xe9": 1}',
        },
    )


# Tensors


def read_tensors(path: Path) -> Tensors:
    return safetensors.numpy.load(path.read_bytes())


def write_tensors(path: Path, tensors: Tensors) -> None:
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(safetensors.numpy.save(contiguous))


def with_value(tensor: np.ndarray, value: float) -> np.ndarray:
    changed = tensor.copy()
    changed.flat[tensor.size // 2] = value
    return changed


WRONG_TENSORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "with a row too many": lambda t: np.concatenate([t, t[:1]]),
    "with a row too few": lambda t: t[:-1],
    "without rows": lambda t: t[:0],
    "with one more axis": lambda t: t[None],
    "flat": lambda t: t.reshape(-1) if t.ndim > 1 else t.reshape(1, -1),
    "a scalar": lambda t: np.ones((), np.float32),
    "of integers": lambda t: t.astype(np.int64),
    "of bytes": lambda t: t.astype(np.uint8),
    "of booleans": lambda t: t > 0,
    "of complex numbers": lambda t: t.astype(np.complex64),
    "with NaN": lambda t: with_value(t, np.nan),
    "with inf": lambda t: with_value(t, -np.inf),
}


def damage_tensor(
    rng: Random, tensors: dict[str, Any], ways: Mapping[str, Callable[[Any], Any]]
) -> str:
    """Damage one tensor so that no model can have it."""
    name = rng.choice(sorted(tensors))
    way = rng.choice([*ways, "missing", "renamed", "there twice"])
    if way in ways:
        tensors[name] = ways[way](tensors[name])
    else:
        tensors[f"{name}.copy"] = tensors[name]
        if way == "missing":
            del tensors[f"{name}.copy"]
        if way != "there twice":
            del tensors[name]
    return f"{name} is {way}"


def tensor(*paths: str) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        path = folder / rng.choice(paths)
        found = read_tensors(path)
        what = damage_tensor(rng, found, WRONG_TENSORS)
        write_tensors(path, found)
        return Damage(f"{path.name}: {what}")

    return action


def tensors(path: str, ways: Mapping[str, Callable[[Tensors], Tensors]]) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        way = rng.choice(list(ways))
        write_tensors(folder / path, ways[way](read_tensors(folder / path)))
        return Damage(f"{path} with {way}")

    return action


def header(*paths: str) -> Action:
    """Make the header of a safetensors file disagree with what follows."""

    def action(rng: Random, folder: Path) -> Damage:
        path = folder / rng.choice(paths)
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        entries, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        name = rng.choice([name for name in entries if name != "__metadata__"])
        start, end = entries[name]["data_offsets"]
        ways: dict[str, dict[str, Any]] = {
            "offsets past the end": {"data_offsets": [start + len(data), end + len(data)]},
            "offsets that overlap others": {"data_offsets": [start + 4, end + 4]},
            "negative offsets": {"data_offsets": [-4, end]},
            "offsets in reverse": {"data_offsets": [end, start]},
            "huge offsets": {"data_offsets": [0, 2**63]},
            "a huge shape": {"shape": [2**40, 2**40]},
            "a negative shape": {"shape": [-1, *entries[name]["shape"]]},
            "a shape that is not a list": {"shape": "x"},
            "a shape of another size": {"shape": [*entries[name]["shape"], 2]},
            "an unknown dtype": {"dtype": "F99"},
            "a dtype that is not a string": {"dtype": 32},
            "a dtype of another size": {"dtype": "F64"},
        }
        way = rng.choice([*ways, "no entry", "a length past the end", "a huge length", "length 0"])
        if way == "no entry":
            del entries[name]
        else:
            entries[name] |= ways.get(way, {})
        text = json.dumps(entries).encode()
        lengths = {"a length past the end": len(text) + len(data) + 1, "a huge length": 2**63}
        size = 0 if way == "length 0" else lengths.get(way, len(text))
        path.write_bytes(size.to_bytes(8, "little") + text + data)
        return Damage(f"{path.name}: {name} has {way}")

    return action


# Arguments


def arguments(*choices: tuple[str, ...]) -> Action:
    def action(rng: Random, folder: Path) -> Damage:
        chosen = rng.choice(choices)
        return Damage(" ".join(map(ascii, chosen)), chosen)

    return action


def shown(name: str) -> tuple[str, ...]:
    """Return how a message may show a name, by its first characters."""
    line = name.split("\n")[0].strip("./ \0")[:20]
    return (line.encode(errors="backslashreplace").decode().replace("\x1b", ""), ascii(line)[1:-1])
