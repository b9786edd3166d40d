"""Damaged folders of Hugging Face's: config.json, model.safetensors, shards, vocabularies."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from campaign import bases, damage
from campaign.case import Case, Kind, either, harmless, refused
from campaign.damage import HUGE, NAN, read_json, write_json

GPT, SHARDS = "gpt", "shards"
MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"


def build(folder: Path) -> None:
    bases.text(folder)
    bases.gpt2(folder)
    bases.sharded(folder)


def commands(place: str) -> tuple[list[str], ...]:
    return (
        ["sample", "--model", place, "--prompt", "the re", *bases.SAMPLING],
        ["convert", place, "out"],
        ["train", "--init-from", place, "--data", "text.txt", *bases.FROM_MODEL, "--eval-only"],
    )


def reader(rng: Random, place: str = GPT) -> list[str]:
    return rng.choice(commands(place))


def vocabulary(folder: Path) -> int:
    return int(read_json(folder / GPT / "config.json")["vocab_size"])


NEEDED = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
READ = (*NEEDED, "model_type", "activation_function", "layer_norm_epsilon", "scale_attn_weights")


def wrong_config(rng: Random, folder: Path) -> Case:
    path, name = folder / GPT / "config.json", rng.choice(READ)
    new = damage.wrong_value(rng, read_json(path)[name])
    if name in NEEDED and rng.random() < 0.6:
        new = rng.choice([0, -1, 1.5, HUGE, -HUGE, NAN, 3, 10**9, 7])
    what = damage.change_leaf(path, (name,), new)
    return refused(what, reader(rng), name, "config.json", MODEL, "n_inner", "n_ctx")


def incomplete_config(rng: Random, folder: Path) -> Case:
    path = folder / GPT / "config.json"
    what = damage.drop_leaf(path, (rng.choice(NEEDED),))
    return refused(what, reader(rng), "config.json")


def no_model_type(rng: Random, folder: Path) -> Case:
    what = damage.drop_leaf(folder / GPT / "config.json", ("model_type",))
    return refused(what, reader(rng), "config.json", "model_type", "gpt")


OTHERS: dict[str, list[Any]] = {
    "model_type": ["llama", "gpt_neox", "bert", "GPT2", "", None, 7, ["gpt2"], "gptj", "mistral"],
    "activation_function": [
        "relu",
        "silu",
        "gelu_fast",
        "GELU",
        "",
        None,
        7,
        [],
        {"a": 1},
        "quick_gelu",
    ],
    "layer_norm_epsilon": [1e-6, 0, -1e-5, "1e-5", None, NAN, 1, 10**400],
    "n_inner": [16, 0, -1, "32", 33, [32], True, 1.5],
    "scale_attn_weights": [False, None, "true", 0, []],
    "scale_attn_by_inverse_layer_idx": [True, None, "false", 1],
    "add_cross_attention": [True, None, "no"],
    "tie_word_embeddings": [False, None, "yes"],
}


def other_architecture(rng: Random, folder: Path) -> Case:
    name = rng.choice(list(OTHERS))
    value = rng.choice(OTHERS[name])
    path = folder / GPT / "config.json"
    write_json(path, {**read_json(path), name: value})
    return refused(f"{name} = {damage.short(value)}", reader(rng), name, "config.json")


def harmless_config(rng: Random, folder: Path) -> Case:
    """Entries that do not change the model, or repeat its default."""
    path = folder / GPT / "config.json"
    found = read_json(path)
    name, value = rng.choice(
        [
            ("n_inner", 32), ("n_ctx", 999), ("summary_type", "cls_index"), ("use_cache", False),
            ("bos_token_id", 0), ("eos_token_id", 5), ("torch_dtype", "float16"),
            ("dtype", "float32"), ("", ""),
            ("transformers_version", "99.0"), ("task_specific_params", {"a": {"b": [1, 2]}}),
            ("attn_pdrop", 0.1), ("resid_pdrop", 0.9), ("reorder_and_upcast_attn", True),
            ("initializer_range", 5), ("architectures", None), ("_name_or_path", "\ud83d"),
            ("activation_function", "gelu_pytorch_tanh"), ("layer_norm_epsilon", 0.00001),
        ]
    )  # fmt: skip
    write_json(path, {**found, name: value})
    return harmless(f"config.json with {name} = {value!a}", reader(rng))


def wrecked_config(rng: Random, folder: Path) -> Case:
    what = damage.wreck_json(rng, folder / GPT / "config.json")
    return refused(what, reader(rng), "config.json")


def damaged_file(rng: Random, folder: Path) -> Case:
    path = folder / GPT / rng.choice(("config.json", MODEL, "vocab.json", "merges.txt"))
    ways = [
        "truncated",
        "emptied",
        "with all bytes zero",
        "compressed by gzip",
        "with random bytes",
    ]
    if path.name == "merges.txt":
        ways.remove("truncated")  # See tokenizer_files.py.
    what = damage.damage_bytes(rng, path, *ways)
    return refused(what, reader(rng), path.name, "vocab.json", "tokenizer")


def flipped_header(rng: Random, folder: Path) -> Case:
    """A bit in the length or in the header; a bit of a name is no longer that of a parameter."""
    path = folder / GPT / MODEL
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    place = rng.randrange(8 + content[8 : 8 + length].rstrip().rfind(b"}"))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    reason = "a bit of the metadata may be any"
    return either(f"a bit of the header flipped at {place}", reader(rng), reason, MODEL)


def displaced_file(rng: Random, folder: Path) -> Case:
    path = folder / GPT / rng.choice(("config.json", MODEL))
    what = damage.displace(rng, path)
    return refused(what, reader(rng), path.name, GPT)


def displaced_tokenizer(rng: Random, folder: Path) -> Case:
    path = folder / GPT / rng.choice(("vocab.json", "merges.txt"))
    what = damage.displace(rng, path)
    return refused(what, commands(GPT)[0], path.name, "tokenizer")


def linked_file(rng: Random, folder: Path) -> Case:
    """As huggingface_hub keeps them: links to files in another folder."""
    for path in list((folder / GPT).iterdir()):
        if rng.random() < 0.7:
            (folder / "blobs").mkdir(exist_ok=True)
            path.rename(folder / "blobs" / path.name)
            path.symlink_to(Path("..", "blobs", path.name))
    return harmless("files behind links", reader(rng))


def change_tensors(
    folder: Path, change: Callable[[damage.Tensors], str], place: str = f"{GPT}/{MODEL}"
) -> str:
    tensors = damage.read_tensors(folder / place)
    what = change(tensors)
    damage.write_tensors(folder / place, tensors)
    return what


def wrong_tensor(rng: Random, folder: Path) -> Case:
    what = change_tensors(folder, lambda tensors: damage.damage_tensor(rng, tensors))
    return refused(what, reader(rng), MODEL)


def wrong_header(rng: Random, folder: Path) -> Case:
    return refused(damage.damage_header(rng, folder / GPT / MODEL), reader(rng), MODEL)


def odd_dtype(rng: Random, folder: Path) -> Case:
    """A dtype that safetensors knows, and this model cannot have."""
    path = folder / GPT / MODEL
    dtype = rng.choice((np.int8, np.int16, np.int32, np.uint16, np.uint32, np.uint64, np.complex64))
    tensors = damage.read_tensors(path)
    name = rng.choice(sorted(tensors))
    tensors[name] = tensors[name].astype(dtype)
    damage.write_tensors(path, tensors)
    return refused(f"{name} of {dtype.__name__}", reader(rng), MODEL)


def other_precision(rng: Random, folder: Path) -> Case:
    """Float64 holds the same numbers, so the same is written."""
    path = folder / GPT / MODEL
    tensors = damage.read_tensors(path)
    for name in rng.sample(sorted(tensors), rng.randrange(1, len(tensors))):
        tensors[name] = tensors[name].astype(np.float64)
    damage.write_tensors(path, tensors)
    return harmless("some tensors in float64", commands(GPT)[0])


def same_tensors(rng: Random, folder: Path) -> Case:
    """The same parameters by the names of GPT2Model, with masks, or in another order."""
    path = folder / GPT / MODEL
    tensors = damage.read_tensors(path)
    way = rng.choice(("no prefix", "masks", "a head", "another order", "metadata"))
    if way == "no prefix":
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    elif way == "masks":
        tensors["transformer.h.0.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.uint8))
        tensors["transformer.h.0.attn.masked_bias"] = np.full((), -1e4, np.float32)
    elif way == "a head":
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    elif way == "another order":
        tensors = dict(sorted(tensors.items(), reverse=True))
    damage.write_tensors(path, tensors)
    return harmless(way, reader(rng))


def contradicting_tensors(rng: Random, folder: Path) -> Case:
    def change(tensors: damage.Tensors) -> str:
        name = rng.choice(sorted(tensors))
        table = tensors["transformer.wte.weight"]
        way = rng.choice(
            ("with and without prefix", "another head", "a head of another shape", "a layer more")
        )
        if way == "with and without prefix":
            tensors[name.removeprefix("transformer.")] = tensors[name]
        elif way == "a layer more":
            layer = {n: t for n, t in tensors.items() if ".h.0." in n}
            tensors |= {n.replace(".h.0.", ".h.1."): t for n, t in layer.items()}
        else:
            tensors["lm_head.weight"] = table[1:] if "shape" in way else table + np.float32(0.1)
        return way

    return refused(change_tensors(folder, change), reader(rng), MODEL)


def padded(rng: Random, folder: Path) -> Case:
    """More rows than tokens, rounded up to a multiple: they are never drawn."""
    size = vocabulary(folder)
    multiple = rng.choice((8, 64, 128))
    rows = -(-size // multiple) * multiple - size

    def change(tensors: damage.Tensors) -> str:
        table = tensors["transformer.wte.weight"]
        tensors["transformer.wte.weight"] = np.concatenate([table, np.full((rows, 8), 9, "f4")])
        return f"{rows} rows of padding to a multiple of {multiple}"

    what = change_tensors(folder, change)
    damage.change_leaf(folder / GPT / "config.json", ("vocab_size",), size + rows)
    return harmless(what, commands(GPT)[0])


def fewer_rows(rng: Random, folder: Path) -> Case:
    size = vocabulary(folder) - rng.choice((1, 2, 50, 200))

    def change(tensors: damage.Tensors) -> str:
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:size]
        return f"a vocabulary of {size}, which is less than the tokenizer's"

    what = change_tensors(folder, change)
    damage.change_leaf(folder / GPT / "config.json", ("vocab_size",), size)
    return refused(what, reader(rng), GPT)


def damaged_index(rng: Random, folder: Path) -> Case:
    path = folder / SHARDS / INDEX
    index = read_json(path)
    name = rng.choice(sorted(index["weight_map"]))
    size = (folder / SHARDS / FIRST).stat().st_size
    value = rng.choice(
        [
            *(
                "../gpt/model.safetensors",
                "/etc/passwd",
                "",
                ".",
                "..",
                "nosuch.safetensors",
                "a\0b",
            ),
            *("config.json", "x" * 300, "\ud800", 7, None, [FIRST], {"a": 1}, size, True),
        ]
    )
    index["weight_map"][name] = value
    write_json(path, index)
    shown = damage.short(value)
    return refused(
        f"{name} in {shown}", reader(rng, SHARDS), INDEX, str(value)[:20] or INDEX, SHARDS
    )


def wrong_map(rng: Random, folder: Path) -> Case:
    path = folder / SHARDS / INDEX
    value = rng.choice([None, [], {}, 7, "x", [FIRST], True, {"": FIRST}, {"x": "x"}])
    write_json(path, {"metadata": {}, "weight_map": value})
    return refused(f"weight_map = {value!a}", reader(rng, SHARDS), INDEX, SHARDS)


def wrecked_index(rng: Random, folder: Path) -> Case:
    what = damage.wreck_json(rng, folder / SHARDS / INDEX)
    return refused(what, reader(rng, SHARDS), INDEX)


def damaged_shard(rng: Random, folder: Path) -> Case:
    path = folder / SHARDS / FIRST
    way = rng.randrange(4)
    if way == 0:
        what = damage.displace(rng, path)
    elif way == 1:
        what = damage.damage_bytes(
            rng, path, "truncated", "emptied", "with all bytes zero", "with random bytes"
        )
    elif way == 2:
        what = damage.damage_header(rng, path)
    else:
        place = f"{SHARDS}/{FIRST}"
        what = change_tensors(folder, lambda tensors: damage.damage_tensor(rng, tensors), place)
    return refused(what, reader(rng, SHARDS), FIRST, INDEX)


def doubled_shard(rng: Random, folder: Path) -> Case:
    """A file by two names, so that each tensor in it is there twice."""
    place = folder / SHARDS
    (place / "again.safetensors").write_bytes((place / FIRST).read_bytes())
    index = read_json(place / INDEX)
    index["weight_map"]["more"] = "again.safetensors"
    write_json(place / INDEX, index)
    return refused("a shard by two names", reader(rng, SHARDS), "twice")


def pickle_only(rng: Random, folder: Path) -> Case:
    path = folder / GPT / MODEL
    path.unlink()
    (folder / GPT / "pytorch_model.bin").write_bytes(rng.randbytes(100))
    return refused("weights in a pickle", reader(rng), "pytorch_model.bin")


def stray_files(rng: Random, folder: Path) -> Case:
    names = ("README.md", ".gitattributes", "generation_config.json", "flax_model.msgpack", "onnx")
    for name in rng.sample(names, 3):
        (folder / GPT / name).write_bytes(rng.randbytes(50))
    return harmless("files that are not read", reader(rng))


def damaged_beside(rng: Random, folder: Path) -> Case:
    """Damaged files about special tokens, which need not be read."""
    name = rng.choice(
        ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
    )
    content = rng.choice([b"", b"{", b"[]", b"\xff", json.dumps({"bos_token": 7}).encode()])
    (folder / GPT / name).write_bytes(content)
    return either(f"{name} is {content!r}", reader(rng), "it may go unread", name)


KINDS: tuple[Kind, ...] = (
    wrong_config, wrong_config, wrong_config, incomplete_config, no_model_type, other_architecture,
    other_architecture, other_architecture, harmless_config, harmless_config, wrecked_config,
    damaged_file, damaged_file, flipped_header, displaced_file, displaced_tokenizer, linked_file,
    wrong_tensor, wrong_tensor, wrong_tensor, wrong_header, wrong_header, odd_dtype,
    other_precision, same_tensors, same_tensors, contradicting_tensors, contradicting_tensors,
    padded, fewer_rows, damaged_index, damaged_index, wrong_map, wrecked_index, damaged_shard,
    damaged_shard, doubled_shard, pickle_only, stray_files, damaged_beside,
)  # fmt: skip
