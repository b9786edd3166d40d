"""The gradient checks of PyTorch, JAX and HIPS autograd, at their defaults, for NumPy functions.

A forward with a hand-written backward becomes a torch.autograd.Function, a jax.custom_vjp or a
primitive of autograd, and the library compares its backward with finite differences.
"""

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Pair:
    """A function of float64 arrays and its hand-written backward.

    arrays: the point at which it is checked. forward: the output for some arrays. backward: the
    gradients for some arrays and the upstream gradient.
    """

    arrays: Arrays
    forward: Callable[..., np.ndarray]
    backward: Callable[[Arrays, np.ndarray], Arrays]
    # A library asks for the same outputs whatever the backward is.
    outputs: dict[bytes, np.ndarray] = field(default_factory=dict[bytes, np.ndarray])

    def output(self, *arrays: Any) -> np.ndarray:
        """Return the output."""
        key = b"".join(np.asarray(array).tobytes() for array in arrays)
        if key not in self.outputs:
            self.outputs[key] = self.forward(*copied(arrays))
        return self.outputs[key].copy()

    def gradients(self, arrays: Any, doutput: Any) -> Arrays:
        """Return the gradients. A wrong backward may change its inputs, and divide by zero."""
        with np.errstate(all="ignore"):  # Libraries call this in threads of their own.
            found = self.backward(copied(arrays), *copied([doutput]))
        if len(found) != len(self.arrays):  # autograd would ignore one too many.
            raise ValueError(f"{len(found)} gradients of {len(self.arrays)} arrays")
        return found


@dataclass(frozen=True)
class LibraryCheck:
    """A check of a library. about: its name. raises_unless_right: raises if it finds an error."""

    about: str
    package: str
    raises_unless_right: Callable[[Pair], object]

    @property
    def version(self) -> str | None:
        """The version that is installed, or None."""
        is_installed = importlib.util.find_spec(self.package) is not None
        return importlib.metadata.version(self.package) if is_installed else None


def copied(arrays: Any) -> Arrays:
    """Return arrays of any library as arrays of float64."""
    return tuple(np.array(array, np.float64) for array in arrays)


def check_with_torch(pair: Pair, **options: bool) -> None:
    """Check a pair with torch.autograd.gradcheck."""
    import torch  # pyright: ignore[reportMissingImports]

    library = cast(Any, torch)

    class Function(library.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(*tensors)
            return library.from_numpy(pair.output(*(each.detach().numpy() for each in tensors)))

        @staticmethod
        def backward(ctx: Any, *upstream: Any) -> Any:
            arrays = [each.detach().numpy() for each in ctx.saved_tensors]
            found = pair.gradients(arrays, upstream[0].numpy())
            return tuple(library.from_numpy(np.array(gradient)) for gradient in found)

    inputs = [library.from_numpy(array.copy()).requires_grad_() for array in pair.arrays]
    library.autograd.gradcheck(Function.apply, inputs, **options)


def check_with_jax(pair: Pair) -> None:
    """Check a pair with jax.test_util.check_grads."""
    import jax  # pyright: ignore[reportMissingImports]
    from jax import test_util  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    library, tests = cast(Any, jax), cast(Any, test_util)
    out, inputs = pair.output(*pair.arrays), tuple(map(np.asarray, pair.arrays))

    def gradients(arrays: Any, doutput: Any) -> Arrays:
        # JAX would log an error, or gradients of another shape; NaN is wrong, too.
        with contextlib.suppress(Exception):
            found = copied(pair.gradients(arrays, doutput))
            if [each.shape for each in found] == [each.shape for each in inputs]:
                return found
        return tuple(np.full_like(each, np.nan) for each in inputs)

    def function(*arrays: Any) -> Any:
        return library.pure_callback(pair.output, out, *arrays)

    def forward(*arrays: Any) -> Any:
        return function(*arrays), arrays

    def backward(arrays: Any, doutput: Any) -> Any:
        return library.pure_callback(gradients, inputs, arrays, doutput)

    hand_written: Any = library.custom_vjp(function)
    hand_written.defvjp(forward, backward)
    with library.enable_x64(True):
        # Reverse mode, once: the callback has no derivative of its own.
        tests.check_grads(hand_written, inputs, order=1, modes=["rev"])


def check_with_autograd(pair: Pair) -> None:
    """Check a pair with autograd.test_util.check_grads."""
    from autograd import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        extend,  # pyright: ignore[reportUnknownVariableType]
        test_util,  # pyright: ignore[reportUnknownVariableType]
    )

    library, tests = cast(Any, extend), cast(Any, test_util)
    hand_written = library.primitive(pair.output)

    def backward(chosen: Sequence[int], out: Any, arrays: Any, options: Any) -> Any:
        def gradients(doutput: Any) -> list[np.ndarray]:
            found = pair.gradients(arrays, doutput)
            return [found[number] for number in chosen]

        return gradients

    library.defvjp_argnums(hand_written, backward)
    numbers = tuple(range(len(pair.arrays)))
    # Its directions are random numbers from NumPy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        tests.check_grads(hand_written, numbers, modes=["rev"], order=1)(*pair.arrays)
    finally:
        np.random.set_state(state)  # noqa: NPY002


LIBRARY_CHECKS = {
    "torch": LibraryCheck("torch.autograd.gradcheck", "torch", check_with_torch),
    "torch fast": LibraryCheck(
        "torch.autograd.gradcheck, fast_mode=True", "torch",
        partial(check_with_torch, fast_mode=True),
    ),
    "jax": LibraryCheck("jax.test_util.check_grads, reverse mode", "jax", check_with_jax),
    "autograd": LibraryCheck(
        "autograd.test_util.check_grads, reverse mode", "autograd", check_with_autograd
    ),
}  # fmt: skip
