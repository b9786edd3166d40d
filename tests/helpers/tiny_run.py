"""A text and a training so small that the command line can be tried many times over."""

import sys
from typing import Any

TEXT = "To be, or not to be: that is the question.\n" * 40
TINY = [
    *("--block-size", "8", "--n-layer", "1", "--n-head", "2", "--n-embd", "8"),
    *("--batch-size", "2", "--eval-interval", "10", "--max-iters", "20"),
]
TINY_FIELDS: dict[str, Any] = {
    flag.removeprefix("--").replace("-", "_"): int(value)
    for flag, value in zip(TINY[::2], TINY[1::2], strict=True)
}
COMMAND = [sys.executable, "-c", "from tinygpt_np.cli import main; main()"]
