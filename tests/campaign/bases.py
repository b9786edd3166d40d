"""Valid inputs, as small as they can be: texts, tokenizers, runs, models, folders of tokens."""

import json
from pathlib import Path
from typing import Any

from campaign import runner
from campaign.case import harmless
from campaign.damage import read_tensors, write_json, write_tensors
from helpers import byte_pairs
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, GPT2Tokenizer, GPTConfig, SentencePieceTokenizer

# Commands whose output is the same each time.
FROM_MODEL = [
    *("--backend", "numpy", "--block-size", "8"),
    *("--batch-size", "2", "--eval-interval", "1", "--max-iters", "2"),
]
TINY = [*FROM_MODEL, "--n-layer", "1", "--n-head", "2", "--n-embd", "8"]
SAMPLING = ["--backend", "numpy", "--greedy", "--tokens", "8", "--seed", "1"]


def do(folder: Path, *command: str) -> None:
    """Run a command that must succeed in a folder."""
    outcome = runner.run(harmless("", command), folder)
    if outcome.code != 0:
        raise RuntimeError(f"tinygpt {' '.join(command)}: {outcome.stderr}")


def text(folder: Path) -> None:
    """text.txt"""
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")


def run(folder: Path) -> None:
    """runs/mine, of characters, after two steps; needs text.txt."""
    do(folder, "train", "--data", "text.txt", "--name", "mine", *TINY)


def byte_pair_files(folder: Path) -> None:
    """pairs/ with vocab.json and merges.txt."""
    (folder / "pairs").mkdir()
    byte_pairs.write(folder / "pairs")


def hugging_face_file(folder: Path) -> None:
    """saved/tokenizer.json, the same tokenizer as Hugging Face's tokenizers library saves it."""
    (folder / "saved").mkdir()
    write_json(folder / "saved" / "tokenizer.json", hugging_face_description())


def hugging_face_description() -> dict[str, Any]:
    vocabulary = byte_pairs.vocabulary()
    end = vocabulary.pop("<|endoftext|>")
    cutting = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": end, "content": "<|endoftext|>", **special, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {**cutting, "use_regex": True},
        "post_processor": {**cutting, "use_regex": True},
        "decoder": {**cutting, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in byte_pairs.PAIRS],
        },
    }


def pieces(folder: Path) -> None:
    """pieces/tokenizer.model, of SentencePiece."""
    (folder / "pieces").mkdir()
    model = SentencePieceTokenizer.train(TEXT, 290).model
    (folder / "pieces" / "tokenizer.model").write_bytes(model)


def gpt2(folder: Path, name: str = "gpt") -> None:
    """gpt/, as transformers saves a GPT-2 of one layer, with the tokenizer of pairs/."""
    tokenizer: GPT2Tokenizer = byte_pairs.small()
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True
    )
    GPT(config).save_pretrained(folder / name, tokenizer)


def sharded(folder: Path) -> None:
    """shards/, the same model in two files; needs gpt/."""
    place = folder / "shards"
    place.mkdir()
    for name in ("config.json", "vocab.json", "merges.txt"):
        (place / name).write_bytes((folder / "gpt" / name).read_bytes())
    tensors = read_tensors(folder / "gpt" / "model.safetensors")
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        write_tensors(place / file, {name: tensors[name] for name in part})
        placed |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (place / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
