"""Token folders of tinygpt prepare and nanoGPT, and a configuration for them."""

from pathlib import Path

import numpy as np
from helpers.tiny_run import TEXT

from tinygpt_np.config import TrainConfig
from tinygpt_np.storage import checkpoint
from tinygpt_np.text.tokenizers import CharTokenizer

CONFIG = TrainConfig(block_size=8)
TOKENIZER = CharTokenizer.from_text(TEXT)


def folder_of(path: Path, train: np.ndarray, val: np.ndarray) -> Path:
    path.mkdir()
    train.astype("<u2").tofile(path / "train.bin")
    val.astype("<u2").tofile(path / "val.bin")
    return path


def prepared(path: Path, text: str = TEXT) -> Path:
    """Write a token folder as tinygpt prepare does, of characters."""
    cut = int(0.9 * len(text))
    tokenizer = CharTokenizer.from_text(text)
    folder_of(path, tokenizer.encode(text[:cut]), tokenizer.encode(text[cut:]))
    meta = {"tokenizer": "char", "train_tokens": cut, "val_tokens": len(text) - cut}
    (path / "meta.json").write_bytes(checkpoint.to_json(meta))
    for name, content in tokenizer.files().items():
        (path / name).write_bytes(content)
    return path
