"""What is trained: sizes of a GPT and of its batch, the recipe, and the FLOPs of a step.

Every side takes the same weights, the same batches and the same recipe, so their losses must agree.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.model import gpt

SEED = 1337
LEARNING_RATE, BETA1, BETA2, WEIGHT_DECAY, GRAD_CLIP = 1e-3, 0.9, 0.99, 0.1, 1.0
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")

Token = TypeVar("Token")


@dataclass(frozen=True)
class Work:
    """A GPT without biases or dropout, and its batch. rounds: how many are enough by default."""

    name: str
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int
    vocab_size: int
    rounds: int

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.block_size

    @property
    def config(self) -> GPTConfig:
        sizes = {name: getattr(self, name) for name in SIZES}
        return GPTConfig(**sizes, dropout=0.0, bias=False, gelu="tanh")


# Layers, heads, width, block_size, batch_size, vocab_size, and rounds.
WORKS = {
    work.name: work
    for work in (
        Work("cpu", 4, 4, 128, 64, 12, 65, 15),
        Work("gpt-384", 6, 6, 384, 256, 8, 65, 9),
        Work("lecture", 6, 6, 384, 256, 64, 65, 3),
        Work("gpt2", 12, 12, 768, 64, 4, 50257, 5),
        Work("gpt2-256", 12, 12, 768, 256, 1, 50257, 5),
    )
}


def multiplying_params(work: Work) -> int:
    """How many parameters each token is multiplied by: 12·C² in a block, and V·C in the head.

    The tied table counts once, as the head: reading a row of it, or of the positions, is no
    product. The scales of layer norm are left out too.
    """
    C = work.n_embd
    return work.n_layer * (3 + 1 + 4 + 4) * C * C + work.vocab_size * C


def attention_flops(n_embd: int, block_size: int, tokens: int) -> float:
    """12·C·(T + 1)/2 a token: the products of causal attention, forward and backward.

    Two products forward (Q Kᵀ, P V) and four backward (dP, dV, dQ, dK), each of C multiply-adds,
    two FLOPs each, for every key that a query sees; on average (T + 1)/2 of T. What a kernel
    computes beyond that (hidden pairs, the scores once more) is its own affair.
    """
    return 12 * n_embd * (block_size + 1) / 2 * tokens


def step_flops(work: Work) -> float:
    """The FLOPs of a training step: N·(6·params that multiply + L·12·C·(T + 1)/2), N = B·T tokens.

    A parameter takes part in three products (forward, dx, dweight), a multiply and an add each.
    Layer norm, GELU, softmax, the loss and AdamW are not counted: they are not what the peak of a
    machine is about.
    """
    attention = attention_flops(work.n_embd, work.block_size, work.tokens)
    return 6 * multiplying_params(work) * work.tokens + work.n_layer * attention


def initial_params(work: Work) -> dict[str, np.ndarray]:
    """The weights that every side starts from, float32, with our names and layout."""
    return gpt.initial_params(work.config, SEED, np.dtype("float32"))


def sampling_params(work: Work) -> dict[str, np.ndarray]:
    """The weights that every side samples from: so large that logits are of order one."""
    return {
        name: 5 * param if param.ndim == 2 else param
        for name, param in initial_params(work).items()
    }


def windows(work: Work) -> list[np.ndarray]:
    """Texts (1, T) of one token, of two, of half a window and of a whole one."""
    rng = np.random.default_rng(SEED)
    lengths = (1, 2, work.block_size // 2, work.block_size)
    return [rng.integers(0, work.vocab_size, (1, length)) for length in lengths]


def texts_on_end(text: Callable[[], Iterator[Token]], warm_up: int) -> Iterator[Token]:
    """The tokens of one text after another, without end; first `warm_up` tokens of one alone.

    So the first turn after the warm-up begins with a text.
    """
    yield from itertools.islice(text(), warm_up)
    while True:
        yield from text()


def batches(work: Work) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and targets (B, T) int64, without end, the same for every side.

    Random ones, new in each step: a batch learned by heart would end in vanishing gradients.
    """
    rng = np.random.default_rng(SEED)
    while True:
        texts = rng.integers(0, work.vocab_size, (work.batch_size, work.block_size + 1))
        yield np.ascontiguousarray(texts[:, :-1]), np.ascontiguousarray(texts[:, 1:])


# The sizes of an attention, B, T, H and D, by the names that attention_inputs gives them.
ATTENTION = ("batch", "time", "n_head", "head_size")


def attention_inputs(
    batch: int, time: int, n_head: int, head_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """qkv (N, 3C) and dy (N, C), float32 of order one, the same for every side."""
    rng, width = np.random.default_rng(SEED), n_head * head_size
    qkv = rng.standard_normal((batch * time, 3 * width), dtype=np.float32)
    dy = rng.standard_normal((batch * time, width), dtype=np.float32)
    return qkv, dy


def norms(*groups: Sequence[np.ndarray]) -> list[float]:
    """The norm of each group of arrays, whatever the order of their numbers, summed in float64."""
    return [
        math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in group))
        for group in groups
    ]
