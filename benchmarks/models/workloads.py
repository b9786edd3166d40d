"""The workloads: sizes of a GPT and its batch, the training recipe, and the FLOPs of a step.

All candidates get the same weights, batches and recipe, so their losses must agree.
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
class Workload:
    """A GPT without biases or dropout, its batch, and the default number of rounds."""

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
        """Tokens per step."""
        return self.batch_size * self.block_size

    @property
    def config(self) -> GPTConfig:
        """The configuration of the model."""
        sizes = {name: getattr(self, name) for name in SIZES}
        return GPTConfig(**sizes, dropout=0.0, bias=False, activation="gelu")


# Layers, heads, width, block_size, batch_size, vocab_size, and rounds.
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("cpu", 4, 4, 128, 64, 12, 65, 15),
        Workload("gpt-384", 6, 6, 384, 256, 8, 65, 9),
        Workload("lecture", 6, 6, 384, 256, 64, 65, 3),
        Workload("gpt2", 12, 12, 768, 64, 4, 50257, 5),
        Workload("gpt2-256", 12, 12, 768, 256, 1, 50257, 5),
    )
}


def attention_flops(n_embd: int, block_size: int, tokens: int) -> float:
    """Return the FLOPs of the products of causal attention: 12·C·(T + 1)/2 per token.

    Two products forward (Q Kᵀ, P V) and four backward (dP, dV, dQ, dK), each of C multiply-adds for
    every visible key, (T + 1)/2 on average. Masked pairs and recomputed scores do not count.
    """
    return 12 * n_embd * (block_size + 1) / 2 * tokens


def step_flops(workload: Workload) -> float:
    """Return the FLOPs of a training step: tokens·(6·(12·L·C² + V·C) + L·12·C·(T + 1)/2).

    Each token is multiplied by 12·C² parameters per block and by the head, in three products each
    (forward, dx, dweight). An embedding lookup is no product. Layer norm, GELU, softmax, the loss
    and AdamW are not counted.
    """
    C = workload.n_embd
    params = workload.n_layer * 12 * C * C + workload.vocab_size * C
    attention = attention_flops(C, workload.block_size, workload.tokens)
    return 6 * params * workload.tokens + workload.n_layer * attention


def initial_params(workload: Workload) -> dict[str, np.ndarray]:
    """Return the float32 weights that every candidate starts from, in our names and layout."""
    return gpt.initial_params(workload.config, SEED, np.dtype("float32"))


def sampling_params(workload: Workload) -> dict[str, np.ndarray]:
    """Return the weights to sample from, so large that logits are of order one."""
    return {
        name: 5 * param if param.ndim == 2 else param
        for name, param in initial_params(workload).items()
    }


def sequences(workload: Workload) -> list[np.ndarray]:
    """Return sequences (1, T) of one token, two, half a block and a whole block."""
    rng = np.random.default_rng(SEED)
    lengths = (1, 2, workload.block_size // 2, workload.block_size)
    return [rng.integers(0, workload.vocab_size, (1, length)) for length in lengths]


def endless(generate: Callable[[], Iterator[Token]], warm_up: int) -> Iterator[Token]:
    """Yield `warm_up` tokens, then whole sequences, so that the first turn starts with one."""
    yield from itertools.islice(generate(), warm_up)
    while True:
        yield from generate()


def batches(workload: Workload) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield random tokens and targets (B, T) int64 without end, the same for every candidate."""
    rng = np.random.default_rng(SEED)
    while True:  # New in each step, because gradients vanish on a memorised batch.
        shape = (workload.batch_size, workload.block_size + 1)
        tokens = rng.integers(0, workload.vocab_size, shape)
        yield np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])


def attention_inputs(
    batch: int, time: int, n_head: int, n_kv_head: int, head_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return qkv (N, E) and dy (N, C), float32 of order one, the same for every candidate."""
    rng, heads = np.random.default_rng(SEED), n_head + 2 * n_kv_head
    qkv = rng.standard_normal((batch * time, heads * head_size), dtype=np.float32)
    dy = rng.standard_normal((batch * time, n_head * head_size), dtype=np.float32)
    return qkv, dy


def norms(*groups: Sequence[np.ndarray]) -> list[float]:
    """Return the norm of each group of arrays, summed in float64."""
    return [
        math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in group))
        for group in groups
    ]
