"""The update of an optimizer on threads: AdamW by pieces of tensors, Muon by matrices."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import numpy as np

from tinygpt_np.compiled.kernels import adamw, muon
from tinygpt_np.compiled.recording import Recorder
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
    Recorder().call(adamw.update, *np.ones((4, 1), np.float32), np.zeros(7))  # Not played.
    if has_matrices(optimizer):
        param, grad, first = np.ones((3, 1, 1), np.float32)
        update_matrix(param, grad, first, slice(0, 1), (1.0, 1e-3, 0.1, 0.9), (1, 1))


def sums_of_squares(recorder: Recorder, grads: Tensors) -> np.ndarray:
    """Record the sum of squares of each block of rows; return the array of sums."""
    pieces = [piece for grad in grads.values() for piece in chunks(grad)]
    sums = np.zeros(len(pieces))
    for place, piece in enumerate(pieces):
        recorder.call(adamw.write_sum_of_squares, piece, sums, place)
    return sums


def elements(
    recorder: Recorder, optimizer: Optimizer, params: Tensors, grads: Tensors
) -> np.ndarray:
    """Record the updates by AdamW, by pieces of tensors; return their recipes (2, 7).

    They are those of matrices and of vectors, to be written before each step.
    """
    recipes = np.zeros((2, 7))
    for name, second in optimizer.second.items():
        recipe = recipes[int(params[name].ndim < 2)]
        tensors = params[name], grads[name], optimizer.first[name], second
        for piece in zip(*map(chunks, tensors), strict=True):
            recorder.call(adamw.update, *piece, recipe)
    return recipes


def write_recipes(
    recipes: np.ndarray, optimizer: Optimizer, scale: float, learning_rate: float
) -> None:
    """Write the recipes (2, 7) of a step, with gradients times `scale`; see adamw.update."""
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    corrections = 1 - beta1**optimizer.steps, 1 - beta2**optimizer.steps
    recipes[:] = scale, learning_rate, optimizer.weight_decay, beta1, beta2, *corrections
    recipes[1, 2] = 0  # Vectors do not decay.


def matrix_tasks(
    optimizer: Optimizer, params: Tensors, grads: Tensors, scale: float, learning_rate: float
) -> list[Callable[[], None]]:
    """Return the updates of Muon's matrices, the longest first, so that threads end together."""
    if not has_matrices(optimizer):
        return []
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
