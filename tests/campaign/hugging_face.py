"""Damaged folders of a GPT-2: config.json, weights, shards, tokenizers."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from campaign import inputs
from campaign.damage import (
    BROKEN,
    HUGE,
    NAN,
    REMOVED,
    SPOILT,
    VALUES,
    Leaf,
    added,
    displaced,
    header,
    json_types,
    json_values,
    linked,
    one_of,
    rewritten,
    tensor,
    tensors,
    truncated,
    wrecked,
)
from campaign.faults import Damage, either, harmless, refused

from tinygpt_np.storage.parameters import Tensors

CONFIG, MODEL = "gpt/config.json", "gpt/model.safetensors"
INDEX, FIRST = "shards/model.safetensors.index.json", "shards/first.safetensors"
SAMPLE, CONVERT, TRAIN = GPT = (
    ("sample", "--model", "gpt", "--prompt", "the re", *inputs.SAMPLING),
    ("convert", "gpt", "out"),
    ("train", "--init-from", "gpt", "--data", "text.txt", *inputs.FROM_MODEL, "--eval-only"),
)
SHARDS = tuple(tuple("shards" if part == "gpt" else part for part in command) for command in GPT)
TABLE = "transformer.wte.weight"
SIZE = 264
NEEDED = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")


def build(folder: Path) -> None:
    inputs.text(folder)
    inputs.gpt2(folder)
    inputs.shards(folder)


def padded(rng: Random, folder: Path) -> Damage:
    """Round the vocabulary up: the additional rows are never sampled."""
    rows = -(-SIZE // (multiple := rng.choice((8, 64, 128)))) * multiple - SIZE

    def pad(found: Tensors) -> Tensors:
        return found | {TABLE: np.concatenate([found[TABLE], np.full((rows, 8), 9, "f4")])}

    tensors(MODEL, {"more rows": pad})(rng, folder)
    return json_values(CONFIG, {("vocab_size",): [SIZE + rows]})(rng, folder)


def fewer_rows(rng: Random, folder: Path) -> Damage:
    size = SIZE - rng.choice((1, 2, 50, 200))
    tensors(MODEL, {"fewer rows": lambda found: found | {TABLE: found[TABLE][:size]}})(rng, folder)
    return json_values(CONFIG, {("vocab_size",): [size]})(rng, folder)


def doubled_shard(rng: Random, folder: Path) -> Damage:
    (folder / "shards" / "again.safetensors").write_bytes((folder / FIRST).read_bytes())
    leaf: Leaf = ("weight_map", "more")
    return json_values(INDEX, {leaf: ["again.safetensors"]})(rng, folder)


def as_pickle(rng: Random, folder: Path) -> Damage:
    (folder / MODEL).rename(folder / "gpt" / "pytorch_model.bin")
    return Damage("weights in a pickle")


OTHERS: dict[Leaf, list[Any]] = {
    ("model_type",): ["llama", "gpt_neox", "GPT2", "", None, 7, ["gpt2"], REMOVED],
    ("activation_function",): ["relu", "gelu_fast", "GELU", "", None, 7, [], {"a": 1}],
    ("layer_norm_epsilon",): [1e-6, 0, -1e-5, "1e-5", None, NAN, 1, 10**400],
    ("n_inner",): [16, 0, -1, "32", 33, [32], True, 1.5],
    ("scale_attn_weights",): [False, None, "true", 0, []],
    ("scale_attn_by_inverse_layer_idx",): [True, None, "false", 1],
    ("add_cross_attention",): [True, None, "no"],
    ("tie_word_embeddings",): [False, None, "yes"],
}
IRRELEVANT: dict[Leaf, list[Any]] = {
    ("n_inner",): [32], ("n_ctx",): [999], ("use_cache",): [False], ("bos_token_id",): [0],
    ("torch_dtype",): ["float16"], ("transformers_version",): ["99.0"], ("attn_pdrop",): [0.1],
    ("task_specific_params",): [{"a": {"b": [1, 2]}}], ("architectures",): [None],
    ("_name_or_path",): ["\ud83d"], ("activation_function",): ["gelu_pytorch_tanh"],
}  # fmt: skip
CONTRADICTIONS: dict[str, Callable[[Tensors], Tensors]] = {
    "and without prefix": lambda t: t | {"ln_f.bias": t["transformer.ln_f.bias"]},
    "another head": lambda t: t | {"lm_head.weight": t[TABLE] + np.float32(0.1)},
    "a head of another shape": lambda t: t | {"lm_head.weight": t[TABLE][1:]},
    "another layer": lambda t: t | {n.replace(".h.0.", ".h.1."): x for n, x in t.items()},
    **{
        f"a table of {dtype}": lambda t, dtype=dtype: t | {TABLE: t[TABLE].astype(dtype)}
        for dtype in ("i1", "i2", "i4", "u2", "u4", "u8")
    },
}
SAME: dict[str, Callable[[Tensors], Tensors]] = {
    "no prefix": lambda t: {n.removeprefix("transformer."): x for n, x in t.items()},
    "masks": lambda t: (
        t
        | {
            "transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 16, 16), np.uint8)),
            "transformer.h.0.attn.masked_bias": np.full((), -1e4, np.float32),
        }
    ),
    "a head": lambda t: t | {"lm_head.weight": t[TABLE]},
    "another order": lambda t: dict(sorted(t.items(), reverse=True)),
    "float64": lambda t: {n: x.astype(np.float64) for n, x in t.items()},
}
FILES = (CONFIG, MODEL, "gpt/vocab.json", "gpt/merges.txt")

FAULTS = (
    refused(
        one_of(
            json_types(CONFIG, *((name,) for name in NEEDED)),
            json_values(CONFIG, {(n,): [0, -1, 1.5, HUGE, NAN, 3, 7, REMOVED] for n in NEEDED}),
        ),
        GPT, *NEEDED, "config.json", "model.safetensors", weight=3,
    ),
    refused(json_values(CONFIG, OTHERS), GPT, *(str(leaf[0]) for leaf in OTHERS), weight=3),
    harmless(json_values(CONFIG, IRRELEVANT), GPT, weight=2),
    refused(wrecked(CONFIG), GPT, "config.json"),
    refused(rewritten(FILES, BROKEN), GPT, *(Path(f).name for f in FILES), "tokenizer", weight=2),
    refused(rewritten(FILES[:3], {"truncated": truncated}), GPT, *(Path(f).name for f in FILES)),
    refused(displaced(CONFIG, MODEL), GPT, "config.json", "model.safetensors", "gpt"),
    refused(displaced(*FILES[2:]), (SAMPLE,), "vocab.json", "merges.txt", "tokenizer"),
    harmless(linked(*FILES), GPT),
    refused(tensor(MODEL), GPT, "model.safetensors", weight=3),
    refused(header(MODEL), GPT, "model.safetensors", weight=2),
    harmless(tensors(MODEL, SAME), (SAMPLE, TRAIN), weight=2),
    refused(tensors(MODEL, CONTRADICTIONS), GPT, "model.safetensors", weight=2),
    harmless(padded, (SAMPLE,)),
    refused(fewer_rows, GPT, "gpt"),
    refused(
        json_values(
            INDEX,
            {
                ("weight_map", "transformer.ln_f.bias"): [
                    *("../gpt/model.safetensors", "/etc/passwd", "", ".", "..", "nosuch", "a\0b"),
                    *("config.json", "x" * 300, "\ud800", 7, None, ["x"], {"a": 1}, True),
                ],
                ("weight_map",): [value for value in VALUES if not isinstance(value, dict)],
            },
        ),
        SHARDS, "index.json", "shards", "xxx", weight=2,
    ),
    refused(wrecked(INDEX), SHARDS, "index.json"),
    refused(
        one_of(displaced(FIRST), rewritten([FIRST], SPOILT),
               header(FIRST), tensor(FIRST)),
        SHARDS, "first.safetensors", "index.json", weight=2,
    ),
    refused(doubled_shard, SHARDS, "twice"),
    refused(as_pickle, GPT, "pytorch_model.bin"),
    harmless(added({f"gpt/{name}": [b"\0x", b"{"] for name in
                    ("README.md", "generation_config.json", "flax_model.msgpack")}), GPT),
    either(added({f"gpt/{name}": [b"", b"{", b"[]", b"\xff", b'{"bos_token": 7}'] for name in
                  ("tokenizer_config.json", "special_tokens_map.json")}), GPT,
           "tokenizer_config.json", "special_tokens_map.json"),
)  # fmt: skip
