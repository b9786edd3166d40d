"""Token folders of tinygpt prepare and nanoGPT, and a configuration for them."""

from pathlib import Path

from helpers.tiny_run import TEXT

from tinygpt_np.config import TrainConfig
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.text.tokenizers import CharTokenizer

CONFIG = TrainConfig(block_size=8)
TOKENIZER = CharTokenizer.from_text(TEXT)


def prepared(path: Path, text: str = TEXT) -> Path:
    """Write a token folder as tinygpt prepare does, of characters."""
    cut = int(0.9 * len(text))
    tokenizer = CharTokenizer.from_text(text)
    meta = {"tokenizer": "char", "train_tokens": cut, "val_tokens": len(text) - cut}
    contents = {"meta.json": checkpoint.to_json(meta), **tokenizer.files()}
    for name, part in (("train.bin", text[:cut]), ("val.bin", text[cut:])):
        contents[name] = tokenizer.encode(part).astype("<u2").tobytes()
    files.write_folder(path, contents)
    return path
