"""The update of an optimizer on threads: AdamW by pieces of tensors, Muon by matrices."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import numpy as np

from tinygpt_np.compiled.kernels import adamw, muon
from tinygpt_np.compiled.simd.memory import workspace
from tinygpt_np.storage.parameters import Tensors, blocks


class Optimizer(Protocol):
    """The part of AdamW that an update reads and changes."""

    beta1: float
    beta2: float
    weight_decay: float
    steps: int
    first: Tensors
    second: Tensors


class MatrixOptimizer(Optimizer, Protocol):
    """The part of Muon that an update reads besides that of AdamW."""

    parts: dict[str, list[slice]]
    momentum: float
    relative_rate: float


def has_matrices(optimizer: Optimizer) -> TypeGuard[MatrixOptimizer]:
    """Return whether an optimizer is Muon; isinstance of a protocol takes longer than a kernel."""
    return hasattr(optimizer, "parts")


def warm_up(optimizer: Optimizer) -> None:
    """Compile what an update needs, and change nothing."""
    ones = [np.ones(1, np.float32) for _ in range(4)]
    adamw.sum_of_squares(ones[0])
    adamw.update(*ones, (1.0, 1e-3, 0.1, 0.9, 0.99, 0.1, 0.01))
    if has_matrices(optimizer):
        param, grad, first = (one[None] for one in ones[:3])
        update_matrix(param, grad, first, slice(0, 1), (1.0, 1e-3, 0.1, 0.9), (1, 1))


def tasks(
    optimizer: Optimizer, params: Tensors, grads: Tensors, scale: float, learning_rate: float
) -> list[Callable[[], None]]:
    """Return what one step of an optimizer does, with gradients times `scale`, in any order."""
    optimizer.steps += 1
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    corrections = 1 - beta1**optimizer.steps, 1 - beta2**optimizer.steps
    found: list[Callable[[], None]] = []
    if has_matrices(optimizer):
        found += matrix_tasks(optimizer, params, grads, scale, learning_rate)
    for name, second in optimizer.second.items():
        param = params[name]
        decay = optimizer.weight_decay if param.ndim >= 2 else 0.0
        recipe = scale, learning_rate, decay, beta1, beta2, *corrections
        pieces = zip(*map(chunks, (param, grads[name], optimizer.first[name], second)), strict=True)
        found += [functools.partial(adamw.update, *piece, recipe) for piece in pieces]
    return found


def matrix_tasks(
    optimizer: MatrixOptimizer, params: Tensors, grads: Tensors, scale: float, learning_rate: float
) -> list[Callable[[], None]]:
    """Return the updates of Muon's matrices, the longest first, so that threads end together."""
    rate = learning_rate * optimizer.relative_rate
    recipe = scale, rate, optimizer.weight_decay, optimizer.momentum
    matrices = [
        (len(params[name]), part.stop - part.start, name, part)
        for name, parts in optimizer.parts.items()
        for part in parts
    ]
    if not matrices:
        return []
    matrices.sort(key=lambda each: -each[0] * each[1] * min(each[:2]))
    # The same for all, so that each thread allocates its memory once.
    sizes = max(r * c for r, c, *_ in matrices), max(min(r, c) for r, c, *_ in matrices)
    return [
        functools.partial(
            update_matrix, params[name], grads[name], optimizer.first[name], part, recipe, sizes
        )
        for _, _, name, part in matrices
    ]


def update_matrix(
    param: np.ndarray, grad: np.ndarray, first: np.ndarray, part: slice, recipe: Any,
    sizes: tuple[int, int],
) -> None:  # fmt: skip
    """Update some columns by Muon, in memory for matrices of these sizes."""
    buffers = workspace.get(muon.make_buffers, *sizes)
    muon.update(param, grad, first, part.start, part.stop, recipe, buffers)


def chunks(tensor: np.ndarray) -> list[np.ndarray]:
    """Return flat views of the parts of a tensor, which are blocks of rows."""
    return [tensor[rows].reshape(-1) for rows in blocks(tensor.shape)]
