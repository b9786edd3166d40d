"""GPT-2 124M generation: the checkpoint's sizes and the prompt."""

import numpy as np

from benchmarks.models.workloads import SEED
from tinygpt_np.config import GPTConfig

CONFIG = GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768, bias=True)
# Tokens of the prompt, and tokens to generate.
LENGTHS = {"48 tokens after a prompt of 16": (16, 48), "1 token after a prompt of 512": (512, 1)}


def prompt_of(count: int) -> np.ndarray:
    """Return the prompt (T,), the same for every candidate."""
    return np.random.default_rng(SEED).integers(0, CONFIG.vocab_size, count)


def flops(prompt: int, count: int) -> float:
    """Return the FLOPs of the products with weights: blocks per token read, head per token made."""
    C = CONFIG.n_embd
    read = prompt + count - 1
    return 2.0 * (read * CONFIG.n_layer * 12 * C * C + count * CONFIG.vocab_size * C)
