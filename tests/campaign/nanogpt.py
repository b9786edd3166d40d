"""Damaged checkpoints of nanoGPT's: ckpt.pt, as PyTorch writes it; needs PyTorch."""

import importlib
import io
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from campaign import bases, damage
from campaign.case import Case, Check, Either, Kind, Outcome, Process, Refused, harmless, refused
from campaign.nanogpt_model import ARGUMENTS, C, T, contents, torch

CONVERT = ["convert", "ckpt.pt", "out", "--text", "text.txt"]


def build(folder: Path) -> None:
    bases.text(folder)
    torch().save(contents(), folder / "ckpt.pt")


def save(folder: Path, value: Any, **options: Any) -> None:
    torch().save(value, folder / "ckpt.pt", **options)


def damaged_file(rng: Random, folder: Path) -> Case:
    ways = (
        "truncated",
        "emptied",
        "with all bytes zero",
        "compressed by gzip",
        "with random bytes",
    )
    what = damage.damage_bytes(rng, folder / "ckpt.pt", *ways)
    return refused(what, CONVERT, "ckpt.pt")


def same_weights(folder: Path) -> Check:
    """Return a check that the weights written are those of the undamaged file."""

    def check(outcome: Outcome) -> str:
        written = folder / "out" / "model.safetensors"
        if not written.exists():
            return "it writes no weights"
        found = damage.read_tensors(written)
        for name, tensor in contents()["model"].items():
            expected = tensor.numpy().T if ".c_" in name and tensor.ndim == 2 else tensor.numpy()
            if name != "lm_head.weight" and not np.array_equal(found[name], expected):
                return f"{name} has other values"
        return ""

    return check


def flipped_bit(rng: Random, folder: Path) -> Case:
    """A bit anywhere in the file: of a number, of the pickle, or of the archive."""
    what = damage.damage_bytes(rng, folder / "ckpt.pt", "with one bit flipped")
    expected = Either("padding is read by nothing", ("ckpt.pt",), same_weights(folder))
    return Case(what, CONVERT, expected)


def flipped_number(rng: Random, folder: Path) -> Case:
    """A bit of a weight, which the checksums of the archive tell of."""
    path = folder / "ckpt.pt"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = rng.choice(
            [e for e in archive.infolist() if "/data/" in e.filename and e.file_size > 30]
        )
    header = content[entry.header_offset : entry.header_offset + 30]
    lengths = (int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little"))
    start = entry.header_offset + 30 + sum(lengths)
    content[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return refused(f"a bit flipped in {entry.filename}", CONVERT, "ckpt.pt")


def displaced(rng: Random, folder: Path) -> Case:
    what = damage.displace(rng, folder / "ckpt.pt")
    return refused(what, CONVERT, "ckpt.pt")


def linked(rng: Random, folder: Path) -> Case:
    damage.behind_link(folder / "ckpt.pt")
    return harmless("ckpt.pt behind a link", CONVERT)


def device(rng: Random, folder: Path) -> Case:
    name = rng.choice(("/dev/null", "/dev/zero", "/dev/urandom", "/dev/stdin", "/dev/full"))
    return Case(name, ["convert", name, *CONVERT[2:]], Refused((name,)), process=Process())


def wrong_tensor(rng: Random, folder: Path) -> Case:
    value, library = contents(), torch()
    model = value["model"]
    name = rng.choice(sorted(set(model) - {"lm_head.weight"}))
    tensor = model[name]
    not_finite = tensor.clone()
    not_finite.view(-1)[rng.randrange(tensor.numel())] = rng.choice([float("nan"), float("inf")])
    other: dict[str, Any] = {
        "a row more": library.cat([tensor, tensor[:1]]),
        "a row less": tensor[:-1].clone(),
        "no rows": tensor[:0].clone(),
        "an axis more": tensor[None],
        "one axis": tensor.reshape(-1) if tensor.ndim > 1 else tensor[:, None],
        "the other layout": tensor.T.clone()
        if tensor.shape[0] != tensor.shape[-1]
        else tensor[:-1],
        "integers": tensor.long(),
        "bytes": tensor.to(library.uint8),
        "booleans": tensor > 0,
        "complex numbers": tensor.to(library.complex64),
        "no finite number": not_finite,
        "sparse values": tensor.reshape(tensor.shape[0], -1).to_sparse(),
        "no values": tensor.to("meta"),
        "eight bits": tensor.to(library.float8_e4m3fn).to(library.int8),
        "None": None,
        "a list": tensor.tolist(),
        "a number": 1.5,
        "a text": "x",
    }
    way = rng.choice([*other, "missing", "renamed", "twice"])
    if way in other:
        model[name] = other[way]
    elif way == "missing":
        del model[name]
    else:
        model[f"{name}.more"] = model.pop(name) if way == "renamed" else tensor
    save(folder, value)
    return refused(f"{name} is {way}", CONVERT, "ckpt.pt")


def expanded_tensor(rng: Random, folder: Path) -> Case:
    """A tensor of few numbers that claims to be a large one: it must not be copied."""
    value, library = contents(), torch()
    name = rng.choice(sorted(value["model"]))
    shape = rng.choice(((10**6, 10**6), (2**31, 8), (10**9,), (8, 2**40)))
    value["model"][name] = library.zeros(1).expand(*shape)
    if rng.random() < 0.5 and "wte" in name:
        value["model_args"]["vocab_size"], value["model_args"]["n_embd"] = shape[0], shape[-1]
    save(folder, value)
    expected = Refused(("ckpt.pt", "memory"))
    return Case(f"{name} expanded to {shape}", CONVERT, expected, process=Process(memory=6 << 30))


def huge_model(rng: Random, folder: Path) -> Case:
    """Arguments and tensors that agree with each other, and with nothing that fits in memory."""
    value, library = contents(), torch()
    vocabulary = rng.choice((10**9, 2**40))
    value["model_args"]["vocab_size"] = vocabulary
    for name in ("transformer.wte.weight", "lm_head.weight"):
        value["model"][name] = library.zeros(1).expand(vocabulary, C)
    save(folder, value)
    expected = Refused(("ckpt.pt", "memory"))
    return Case(f"{vocabulary:,} tokens", CONVERT, expected, process=Process(memory=6 << 30))


def same_tensors(rng: Random, folder: Path) -> Case:
    """The same weights in another layout in memory, under the prefixes of PyTorch's wrappers."""
    value, library = contents(), torch()
    model = value["model"]
    way = rng.choice(
        ("views", "float64", "masks", "no head", "parameters", "transposed", "more entries")
    )
    if way == "views":
        model = {name: library.stack([tensor, tensor])[1] for name, tensor in model.items()}
    elif way == "float64":
        model = {name: tensor.double() for name, tensor in model.items()}
    elif way == "masks":
        model["transformer.h.0.attn.bias"] = library.ones(1, 1, T, T).tril()
    elif way == "no head":
        del model["lm_head.weight"]
    elif way == "parameters":
        model = {name: library.nn.Parameter(tensor) for name, tensor in model.items()}
    elif way == "transposed":
        model = {name: tensor.t().contiguous().t() for name, tensor in model.items()}
    else:
        value |= {"scaler": {}, "\ud83d": [1, (2, 3)], 7: None, "rng": library.ones(3)}
    prefix = rng.choice(("", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."))
    value["model"] = {prefix + name: tensor for name, tensor in model.items()}
    save(folder, value)
    return harmless(f"{way} under {prefix!r}", CONVERT, same_weights(folder))


def older_arguments(rng: Random, folder: Path) -> Case:
    """Arguments that early versions did not save."""
    value = contents()
    missing = rng.choice((["bias"], ["dropout"], ["bias", "dropout"]))
    for name in missing:
        del value["model_args"][name]
    if rng.random() < 0.5:
        value["model_args"]["new"] = "x"
    save(folder, value)
    return harmless(f"no {missing} in model_args", CONVERT, same_weights(folder))


def mixed_prefixes(rng: Random, folder: Path) -> Case:
    value = contents()
    model = value["model"]
    name = rng.choice(sorted(set(model) - {"lm_head.weight"}))
    prefix = rng.choice(("_orig_mod.", "module.", "module._orig_mod."))
    model[prefix + name] = model[name] * rng.choice((1, 2))
    save(folder, value)
    return refused(f"{name} also under {prefix}", CONVERT, "ckpt.pt")


def other_head(rng: Random, folder: Path) -> Case:
    value = contents()
    head = value["model"]["lm_head.weight"]
    value["model"]["lm_head.weight"] = rng.choice((head + 1, head[:-1], head.T.clone(), head[0]))
    save(folder, value)
    return refused("a head that is not the table", CONVERT, "ckpt.pt")


def wrong_arguments(rng: Random, folder: Path) -> Case:
    value = contents()
    name = rng.choice(sorted(ARGUMENTS))
    wrong: list[Any] = [
        0,
        -1,
        1.5,
        10**30,
        float("nan"),
        "x",
        None,
        [],
        {},
        3,
        7,
        10**9,
        torch().ones(2),
    ]
    if name in ("bias", "dropout"):
        wrong = ["x", None, [], 7, -1, float("nan"), torch().ones(2)]
    chosen = rng.choice(wrong)
    value["model_args"][name] = chosen
    save(folder, value)
    return refused(f"model_args.{name} = {damage.short(chosen)}", CONVERT, "ckpt.pt", "memory")


def incomplete_arguments(rng: Random, folder: Path) -> Case:
    value = contents()
    name = rng.choice(sorted(set(ARGUMENTS) - {"bias", "dropout"}))
    del value["model_args"][name]
    save(folder, value)
    return refused(f"model_args without {name}", CONVERT, "ckpt.pt")


def other_contents(rng: Random, folder: Path) -> Case:
    whole = contents()
    other: dict[str, Any] = {
        "a state_dict alone": whole["model"],
        "no model_args": {"model": whole["model"]},
        "no model": {"model_args": whole["model_args"]},
        "an empty model": {**whole, "model": {}},
        "a list for a model": {**whole, "model": [1]},
        "null for a model": {**whole, "model": None},
        "a list of arguments": {**whole, "model_args": [1]},
        "a list": [whole],
        "a tensor": torch().ones(3),
        "a number": 7,
        "nothing": None,
        "an empty object": {},
        "names that are numbers": {**whole, "model": {7: torch().ones(3)}},
        "names with surrogates": {**whole, "model": {"\ud800": torch().ones(3)}},
        "names with a NUL": {**whole, "model": {**whole["model"], "a\0b\x1b[31m": torch().ones(3)}},
        "a name of 300 characters": {
            **whole,
            "model": {**whole["model"], "x" * 300: torch().ones(3)},
        },
    }
    way = rng.choice(list(other))
    save(folder, other[way])
    return refused(way, CONVERT, "ckpt.pt")


class Command:
    """A call that a pickle makes when it is opened without checks."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def forbidden_code(rng: Random, folder: Path) -> Case:
    """A pickle that makes a file when it is run; the runner finds the file."""
    whole = contents()
    path = Path("/proc/self/cwd/canary")
    code = rng.choice(
        [
            Command(eval, f"open({str(path)!r}, 'w').close()"),
            Command(exec, f"open({str(path)!r}, 'w').close()"),
            Command(open, str(path), "w"),
            Command(importlib.import_module("os").system, f"touch {path}"),
            Command(importlib.import_module("shutil").copyfile, "text.txt", str(path)),
        ]
    )
    place = rng.choice(("config", "model", "model_args", "optimizer"))
    kind = rng.choice(("zip", "legacy", "pickle"))
    value = {**whole, place: code}
    if kind == "pickle":
        (folder / "ckpt.pt").write_bytes(
            pickle.dumps({**value, "model": {}} if place != "model" else value)
        )
    else:
        save(folder, value, _use_new_zipfile_serialization=kind == "zip")
    return refused(f"code in {place} of a {kind}", CONVERT, "ckpt.pt")


def other_format(rng: Random, folder: Path) -> Case:
    path = folder / "ckpt.pt"
    whole, memory = contents(), io.BytesIO()
    way = rng.choice(
        ("legacy", "an .npz", "safetensors", "a text", "another zip", "an empty zip", "a pickle")
    )
    if way == "legacy":
        save(folder, whole, _use_new_zipfile_serialization=False)
    elif way == "an .npz":
        np.savez(memory, **{name: tensor.numpy() for name, tensor in whole["model"].items()})
        path.write_bytes(memory.getvalue())
    elif way == "safetensors":
        damage.write_tensors(
            path, {name: tensor.numpy() for name, tensor in whole["model"].items()}
        )
    elif way == "a text":
        path.write_bytes((folder / "text.txt").read_bytes())
    elif way == "a pickle":
        path.write_bytes(pickle.dumps({"model": {}, "model_args": ARGUMENTS}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(3 if way == "another zip" else 0):
                archive.writestr(f"part/{number}", rng.randbytes(100))
    return refused(f"{way} in place of ckpt.pt", CONVERT, "ckpt.pt")


def changed_archive(rng: Random, folder: Path) -> Case:
    """A record of the archive is missing, doubled, cut off, or filled with something else."""
    path = folder / "ckpt.pt"
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = rng.choice([name for name in records if name.endswith("data.pkl") or "/data/" in name])
    way = rng.choice(("missing", "cut off", "emptied", "random"))
    if way == "missing":
        del records[name]
    else:
        changed = {"cut off": records[name][:-3], "emptied": b"", "random": rng.randbytes(60)}
        records[name] = changed[way]
    if way == "random" and "/data/" in name:
        records[name] = records[name][:4]
    with zipfile.ZipFile(path, "w") as archive:
        for record, content in records.items():
            archive.writestr(record, content)
    return refused(f"the record {name} is {way}", CONVERT, "ckpt.pt")


def right_text(rng: Random, folder: Path) -> Case:
    path = folder / "text.txt"
    content = path.read_bytes()
    path.write_bytes(
        rng.choice((b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content * 2))
    )
    return harmless("the text in another dress", CONVERT)


def existing_out(rng: Random, folder: Path) -> Case:
    (folder / "full").mkdir()
    (folder / "link").symlink_to("nothing")
    out = rng.choice(("full", "text.txt", ".", "ckpt.pt", "text.txt/x", "link", "/proc/x"))
    return refused(f"written to {out}", ["convert", "ckpt.pt", out, *CONVERT[3:]], out[:8])


def without_torch(rng: Random, folder: Path) -> Case:
    """PyTorch cannot be imported: what it is needed for is said."""
    blocked = folder / "blocked"
    blocked.mkdir()
    error = rng.choice(("ImportError('no torch')", "ModuleNotFoundError('torch')"))
    (blocked / "torch.py").write_text(f"raise {error}\n")
    process = Process(environment={"PYTHONPATH": str(blocked), "PYTHONDONTWRITEBYTECODE": "1"})
    return Case("no PyTorch", CONVERT, Refused(("pip install torch",)), process=process)


KINDS: tuple[Kind, ...] = (
    damaged_file, damaged_file, flipped_bit, flipped_bit, flipped_bit, flipped_number,
    flipped_number, displaced, linked, device, wrong_tensor, wrong_tensor, wrong_tensor,
    wrong_tensor, expanded_tensor, huge_model, same_tensors, same_tensors, same_tensors,
    older_arguments, mixed_prefixes, other_head, wrong_arguments, wrong_arguments, wrong_arguments,
    incomplete_arguments, other_contents, other_contents, forbidden_code, forbidden_code,
    other_format, changed_archive, changed_archive, right_text, existing_out,
    without_torch,
)  # fmt: skip
