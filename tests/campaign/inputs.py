"""Valid inputs, as small as possible: a text, tokenizers, runs, models."""

from pathlib import Path
from typing import Any

from campaign import runner
from campaign.damage import read_tensors, write_json, write_tensors
from helpers import byte_pairs
from helpers.tiny_run import TEXT

from tinygpt_np import GPT, GPTConfig, SentencePieceTokenizer

# Commands whose output is the same each time.
FROM_MODEL = (
    *("--backend", "numpy", "--block-size", "8"),
    *("--batch-size", "2", "--eval-interval", "1", "--max-iters", "2"),
)
TINY = (*FROM_MODEL, "--n-layer", "1", "--n-head", "2", "--n-embd", "8")
TRAIN = ("train", "--data", "text.txt", *TINY)
SAMPLING = ("--backend", "numpy", "--greedy", "--tokens", "8", "--seed", "1")


def do(folder: Path, *command: str) -> None:
    """Run a command that must succeed."""
    outcome = runner.run(command, folder)
    assert outcome.code == 0, outcome.stderr


def text(folder: Path) -> None:
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")


def run(folder: Path, name: str = "mine", *flags: str) -> None:
    """Train runs/mine, of characters, for two steps."""
    text(folder)
    do(folder, *TRAIN, "--name", name, *flags)


def pairs(folder: Path) -> None:
    """Write pairs/ with vocab.json and merges.txt."""
    (folder / "pairs").mkdir()
    byte_pairs.write(folder / "pairs")


def pieces(folder: Path) -> None:
    """Write pieces/tokenizer.model, of SentencePiece."""
    (folder / "pieces").mkdir()
    model = SentencePieceTokenizer.train(TEXT, 290).model
    (folder / "pieces" / "tokenizer.model").write_bytes(model)


def characters(folder: Path) -> None:
    """Write characters/tokenizer.json."""
    (folder / "characters").mkdir()
    description = {"type": "char", "vocabulary": sorted(set(TEXT))}
    write_json(folder / "characters" / "tokenizer.json", description)


def hugging_face(folder: Path) -> None:
    """Write saved/tokenizer.json, as Hugging Face's tokenizers library writes pairs/."""
    vocabulary = byte_pairs.vocabulary()
    end = vocabulary.pop("<|endoftext|>")
    splitting = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    description: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": end, "content": "<|endoftext|>", **special, "special": True}],
        "pre_tokenizer": {**splitting, "use_regex": True},
        "post_processor": {**splitting, "use_regex": True},
        "decoder": {**splitting, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": vocabulary,
            "merges": [list(pair) for pair in byte_pairs.PAIRS],
        },
    }  # fmt: skip
    (folder / "saved").mkdir()
    write_json(folder / "saved" / "tokenizer.json", description)


def gpt2(folder: Path) -> None:
    """Write gpt/, as transformers saves a GPT-2 of one layer, with the tokenizer of pairs/."""
    tokenizer = byte_pairs.small()
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, block_size=16, n_layer=1, n_head=2, n_embd=8, bias=True
    )
    GPT(config).save_pretrained(folder / "gpt", tokenizer)


def shards(folder: Path) -> None:
    """Write shards/, the model of gpt/ in two files."""
    place = folder / "shards"
    place.mkdir()
    for name in ("config.json", "vocab.json", "merges.txt"):
        (place / name).write_bytes((folder / "gpt" / name).read_bytes())
    tensors = read_tensors(folder / "gpt" / "model.safetensors")
    names, index = sorted(tensors), dict[str, str]()
    for file, part in (("first.safetensors", names[::2]), ("second.safetensors", names[1::2])):
        write_tensors(place / file, {name: tensors[name] for name in part})
        index |= dict.fromkeys(part, file)
    write_json(place / "model.safetensors.index.json", {"weight_map": index})
