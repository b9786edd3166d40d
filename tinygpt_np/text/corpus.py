"""The text: where it comes from, how it is split, how batches are cut from it."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygpt_np.config import counted
from tinygpt_np.text.reading import DataError, read_text

TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
NAMED = ("shakespeare", "tinyshakespeare")
TRAIN_SHARE = 0.9
# Tokens a call of the model while evaluating. Fixed, so that the validation loss does not depend
# on the batch size, not even in its last bit; small, so that evaluating takes little memory.
EVAL_TOKENS = 2048


@dataclass(frozen=True)
class Corpus:
    """A text under a name."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(source: str, keep_mark: bool = False) -> Corpus:
    """Return the corpus named `shakespeare` or `tinyshakespeare`, or the UTF-8 text at a path.

    keep_mark: whether a byte order mark at the start of a file is a character of the text.
    """
    if source == "shakespeare":
        return Corpus(source, read_text(embedded_file()))
    if source == "tinyshakespeare":
        return Corpus(source, read_text(tinyshakespeare_file()))
    path = Path(source)
    if not os.path.lexists(path):
        raise DataError(
            f"there is no file {path}; expected shakespeare, tinyshakespeare, the path of a "
            "UTF-8 text, or, to train, a folder with train.bin and val.bin"
        )
    return Corpus(str(path.resolve()), read_text(path, keep_mark))


def embedded_file() -> Path:
    """The embedded corpus: beside the package in a wheel, in data/ in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "shakespeare.txt"
    return installed if installed.exists() else package.parent / "data" / "shakespeare.txt"


def tinyshakespeare_file() -> Path:
    """Karpathy's original in the user's cache, downloaded on first use."""
    import pooch  # pyright: ignore[reportMissingTypeStubs]

    path = Path(pooch.os_cache("tinygpt-np")) / "tinyshakespeare.txt"
    remedy = (
        f"put the file input.txt of karpathy/char-rnn, data/tinyshakespeare (1,115,394 bytes, "
        f"SHA-256 {TINYSHAKESPEARE_SHA256}) at {path}"
    )
    if path.exists():
        if hashlib.sha256(path.read_bytes()).hexdigest() != TINYSHAKESPEARE_SHA256:
            raise DataError(
                f"{path} has the wrong checksum; remove it to download it anew, or {remedy}"
            )
        return path
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(  # pyright: ignore[reportUnknownMemberType]
            TINYSHAKESPEARE_URL, TINYSHAKESPEARE_SHA256, path.name, path.parent
        )
    except OSError as error:
        reason = type(error).__name__
        raise DataError(f"tinyshakespeare cannot be downloaded ({reason}); {remedy}") from None
    except ValueError:
        raise DataError(f"the download has the wrong checksum; {remedy}") from None
    return path


def split(ids: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """ids (M,) -> the first 90 % to train on and the rest to validate on, as in the lecture.

    Raises DataError unless each part has a block and the token after it.
    """
    cut = int(TRAIN_SHARE * len(ids))
    train, val = ids[:cut], ids[cut:]
    check_lengths(train, val, block_size)
    return train, val


def check_lengths(train: np.ndarray, val: np.ndarray, block_size: int) -> None:
    """Raises DataError unless each split has a block and the token after it."""
    needed = block_size + 1
    for name, part in (("training", train), ("validation", val)):
        if len(part) < needed:
            # The validation split, a tenth rounded up, is the smaller one and decides.
            enough = 10 * block_size + 1
            raise DataError(
                f"the text is too short: its {name} split has {counted(len(part), 'token')}, but "
                f"--block-size {block_size:,} needs {needed:,}; a text of {enough:,} tokens is "
                "long enough"
            )


def random_batch(
    ids: np.ndarray, batch_size: int, block_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Chunks from random places: tokens and the targets one further on, both (B, T) int64."""
    starts = rng.integers(len(ids) - block_size, size=batch_size)  # (B,)
    places = starts[:, None] + np.arange(block_size)  # (B, T)
    return ids[places].astype(np.int64), ids[places + 1].astype(np.int64)


def windows(ids: np.ndarray, block_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The whole split in order, each token after the first a target exactly once.

    Yields tokens and targets (B, T) int64 of windows that do not overlap; the last is shorter.
    """
    count = len(ids) - 1
    whole = count // block_size * block_size
    per_call = max(EVAL_TOKENS // block_size, 1) * block_size
    for start in range(0, whole, per_call):
        part = ids[start : min(start + per_call, whole) + 1].astype(np.int64)
        yield part[:-1].reshape(-1, block_size), part[1:].reshape(-1, block_size)
    if whole < count:
        part = ids[whole:].astype(np.int64)
        yield part[None, :-1], part[None, 1:]
