"""A folder of valid inputs of every kind, as small as possible."""

import atexit
import contextlib
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from campaign.damage import TENSOR_FILE, write_tensors
from helpers import byte_pairs
from helpers.nanogpt_checkpoints import CONFIG, contents, generic
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, GPTConfig, SentencePieceTokenizer, cli

# Commands whose output is the same each time.
FROM_MODEL = (
    *("--backend", "numpy", "--block-size", "8"),
    *("--batch-size", "2", "--eval-interval", "1", "--max-iters", "2"),
)
# A GPT-2, which transformers can read too.
TINY = (*FROM_MODEL, "--preset", "cpu", "--n-layer", "1", "--n-head", "2", "--n-embd", "8")
TRAIN = ("train", "--data", "text.txt", *TINY)
SAMPLING = ("--backend", "numpy", "--greedy", "--tokens", "8", "--seed", "1")
LLAMA = GPTConfig(
    vocab_size=290, block_size=16, n_layer=1, n_head=2, n_kv_head=1, n_embd=8, n_inner=12,
    norm="rms_norm", positions="rotary_halves", activation="swiglu", tied_head=False,
)  # fmt: skip
CHECKPOINT = "runs/mine/checkpoints/000002"


@functools.cache
def inputs() -> Path:
    """Return a folder with the inputs, which is removed at exit; tmp/ is for temporary files."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("tmp", "bare", "pairs", "saved", "pieces", "shards", "nano"):
        (folder / name).mkdir()
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    tokenizer = byte_pairs.small()
    byte_pairs.write(folder / "pairs")
    # The same tokenizer as Hugging Face writes it.
    (folder / "saved" / "tokenizer.json").write_text(json.dumps(byte_pairs.description()))
    pieces = SentencePieceTokenizer.train(TEXT, 290)
    (folder / "pieces" / "tokenizer.model").write_bytes(pieces.model)
    GPT(LLAMA).save_pretrained(folder / "llama", pieces)
    # A GPT-2 in one file, and in two shards.
    size = tokenizer.vocab_size
    config = GPTConfig(vocab_size=size, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True)
    GPT(config).save_pretrained(folder / "gpt", tokenizer)
    copy(folder / "gpt", folder / "shards", "config.json", "vocab.json", "merges.txt")
    tensors, index = TENSOR_FILE.read(folder / "gpt" / "model.safetensors"), dict[str, str]()
    for number, file in enumerate(("first.safetensors", "second.safetensors")):
        part = {name: tensors[name] for name in sorted(tensors)[number::2]}
        write_tensors(folder / "shards" / file, part)
        index |= dict.fromkeys(part, file)
    path = folder / "shards" / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    # A run of characters, its model without a tokenizer, and three folders of tokens.
    for command in (
        (*TRAIN, "--name", "mine"),
        ("prepare", "--data", "text.txt", "--out", "chars", "--tokenizer", "char"),
        ("prepare", "--data", "text.txt", "--out", "bytes", "--tokenizer-path", "pairs"),
    ):
        with contextlib.chdir(folder):
            cli.main(command)
    copy(folder / CHECKPOINT, folder / "bare", "config.json", "model.safetensors")
    copy(folder / "chars", folder / "nano", "train.bin", "val.bin")
    (folder / "nano" / "input.txt").write_text(TEXT, encoding="utf-8")
    with contextlib.suppress(ImportError):
        import torch  # pyright: ignore[reportMissingImports]

        cast(Any, torch).save(contents(generic(CONFIG)), folder / "ckpt.pt")
    return folder


def copy(source: Path, target: Path, *names: str) -> None:
    for name in names:
        shutil.copy(source / name, target)
