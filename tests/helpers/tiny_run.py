"""Texts and trainings so small that a test takes a fraction of a second."""

import sys
from typing import Any

from tinygpt_np.config import TrainConfig
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus

# On the command line.
TEXT = "To be, or not to be: that is the question.\n" * 40
TINY = [
    *("--preset", "cpu"),
    *("--block-size", "8", "--n-layer", "1", "--n-head", "2", "--n-embd", "8"),
    *("--batch-size", "2", "--eval-interval", "10", "--max-iters", "20"),
]
TINY_FIELDS: dict[str, Any] = {
    flag.removeprefix("--").replace("-", "_"): int(value)
    for flag, value in zip(TINY[2::2], TINY[3::2], strict=True)
}
COMMAND = [sys.executable, "-c", "from tinygpt_np.cli import main; main()"]

# In Python.
LETTERS = "".join(chr(97 + i * i % 13) + " .\n"[i % 3] for i in range(400))
DATA = dataset.from_corpus(Corpus("letters", LETTERS))
CONFIG = TrainConfig(
    block_size=8, n_layer=2, n_head=2, n_embd=12, dropout=0.25, bias=True,
    batch_size=3, max_iters=10, warmup_iters=2, lr_decay_iters=10, eval_interval=4, seed=5,
)  # fmt: skip
