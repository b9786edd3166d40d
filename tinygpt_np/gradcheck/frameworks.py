"""Check the gradients that PyTorch or JAX computes, with the report of `check`.

That finds mistakes in a torch.autograd.Function or a jax.custom_vjp, whose backward is written by
hand. The function is measured in float64, and its gradient comes from the library, for a random
upstream gradient.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np.gradcheck.calls import check_callable, describe, named
from tinygpt_np.gradcheck.function_check import FunctionCheck
from tinygpt_np.gradcheck.measure import CheckError
from tinygpt_np.gradcheck.progress import progress
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.gradcheck.tree import leaves, map_leaves, with_leaves

FrameworkMethod = Literal["richardson", "taylor"]
METHODS: tuple[FrameworkMethod, ...] = ("richardson", "taylor")
# The name of the parameters of a module among the arguments.
PARAMETERS = "params"
INSTALL = "this check needs {}: pip install 'tinygpt-np[{}]'"


def check_torch(
    fn: Any,
    *inputs: Any,
    method: FrameworkMethod = "richardson",
    directions: int | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Check the gradient that PyTorch computes for a function against the numerical one.

    Parameters
    ----------
    fn : callable
        A torch.autograd.Function (or its ``apply``), an nn.Module, or any function of tensors that
        returns a tensor, or several in a tuple, list or dict. Other arguments are bound with
        functools.partial. Random numbers of torch, as in dropout, are the same in each call.
    *inputs : torch.Tensor
        The arguments, which may be nested in lists, tuples and dicts. Those that require a gradient
        are checked, or all of floats if none does; and the parameters of a module. They are checked
        in float64. Tensors of integers or booleans have no gradient.
    method : {"richardson", "taylor"}
        The oracle.
    directions, seed, title
        As for `check`.

    Returns
    -------
    Report
        One row per tensor; ``report.ok`` is True if all are right.

    Raises
    ------
    CheckError
        If the function cannot be checked; the message says what to change.
    ImportError
        If PyTorch is not installed.
    """
    return TorchFunction(fn, inputs).report(method, directions, seed, title)


def check_jax(
    fn: Callable[..., Any],
    *args: Any,
    method: FrameworkMethod = "richardson",
    directions: int | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Check the gradient that JAX computes for a function against the numerical one.

    Parameters
    ----------
    fn : callable
        A jax.custom_vjp, or any function of arrays that jax.vjp takes. It may return several arrays
        in a tuple, list or dict. Other arguments are bound with functools.partial.
    *args : array
        The arguments, which may be nested in lists, tuples and dicts. All arrays of floats are
        checked, in float64: jax_enable_x64 is switched on for the check.
    method, directions, seed, title
        As for `check_torch`.

    Returns
    -------
    Report
        One row per array; ``report.ok`` is True if all are right.

    Raises
    ------
    CheckError
        If the function cannot be checked; the message says what to change.
    ImportError
        If JAX is not installed.
    """
    return JaxFunction(fn, args).report(method, directions, seed, title)


class LibraryFunction(ABC):
    """A function of another library, as a forward and a backward for NumPy arrays.

    fn: the function. args: its arguments by name, with arrays of float64 in place of those of the
    library. wrt: the leaves to check. promoted: those that were not float64.
    """

    fn: Any
    args: dict[str, Any]
    wrt: tuple[str, ...]
    promoted: tuple[str, ...]

    @abstractmethod
    def settings(self) -> AbstractContextManager[Any]:
        """Return a context with the settings of the library that the check needs."""

    @abstractmethod
    def forward(self, **args: Any) -> tuple[Any, Any]:
        """Return the outputs as NumPy arrays, and what backward needs."""

    @abstractmethod
    def backward(self, douts: Any, saved: Any) -> dict[str, np.ndarray]:
        """Return the gradients that the library computes, by leaf."""

    @abstractmethod
    def array(self, value: Any) -> np.ndarray:
        """Return an array of the library as one of float64."""

    def shown(self, returned: Any, outputs: Mapping[str, Any]) -> Any:
        """Return what the function returned, with arrays for its outputs and None for the rest."""
        if not outputs:
            raise CheckError(f"{name_of(self.fn)} returns nothing that has a gradient")
        for name, out in outputs.items():
            if "float64" not in str(out.dtype):
                raise CheckError(
                    f"{name_of(self.fn)} must keep float64, but {name} is of {out.dtype}: "
                    "differences in lower precision are too rough to check a gradient"
                )
        arrays = {name: self.array(out) for name, out in outputs.items()}
        return map_leaves(lambda name, _: arrays.get(name), {"out": returned})["out"]

    def report(
        self, method: FrameworkMethod, directions: int | None, seed: int, title: str | None
    ) -> Report:
        """Check the gradients."""
        if method not in METHODS:
            raise CheckError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
        if not self.wrt:
            raise CheckError("one of the arguments must be an array of floats of the library")
        title = title or name_of(self.fn)

        def backward(douts: Any, saved: Any) -> dict[str, np.ndarray]:
            try:
                return self.backward(douts, saved)
            except Exception as error:  # Libraries raise errors of many types.
                raise CheckError(f"the gradient of {title} raises {describe(error)}") from error

        with self.settings(), progress("checking the gradients") as announce:
            check = FunctionCheck(
                self.forward, self.args, self.wrt, method=method, directions=directions,
                seed=seed, title=title, announce=announce,
            )  # fmt: skip
            report = check.report(backward)
        promoted = ", ".join(self.promoted)
        notes = [f"promoted to float64 for the check: {promoted}"] if promoted else []
        return replace(report, notes=(*notes, *report.notes))


class TorchFunction(LibraryFunction):
    """A function of tensors, a torch.autograd.Function or a module."""

    def __init__(self, fn: Any, inputs: tuple[Any, ...]) -> None:
        try:
            import torch  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError(INSTALL.format("PyTorch", "bench")) from None
        self.torch: Any = torch
        self.random = self.torch.get_rng_state()
        functions = self.torch.autograd.Function
        # A Function, or the method apply of one.
        owner = fn if isinstance(fn, type) else getattr(fn, "__self__", None)
        is_function = isinstance(owner, type) and issubclass(owner, functions)
        self.module: Any = fn if isinstance(fn, self.torch.nn.Module) else None
        self.fn = cast(Any, owner).apply if is_function else fn
        check_callable("fn", fn)
        described: Any = fn if self.module is None else self.module.forward
        if is_function:
            described = cast(Any, owner).forward
            if cast(Any, owner).setup_context is functions.setup_context:
                described = partial(described, None)  # Without ctx.
        self.given = named(described, inputs)
        parameters = {} if self.module is None else dict(self.module.named_parameters())
        every = {**self.given, PARAMETERS: parameters}
        tensors = {n: t for n, t in leaves(every).items() if isinstance(t, self.torch.Tensor)}
        if any(tensor.is_complex() for tensor in tensors.values()):
            raise CheckError("complex tensors cannot be checked")
        floats = {name: t for name, t in tensors.items() if t.is_floating_point()}
        wanted = [name for name, tensor in floats.items() if tensor.requires_grad]
        of_inputs = [name for name in leaves(self.given) if name in floats]
        if not {*wanted} & {*of_inputs}:
            wanted += of_inputs
        self.wrt = tuple(name for name in floats if name in wanted)
        self.promoted = tuple(n for n, t in floats.items() if t.dtype != self.torch.float64)
        self.devices = {name: tensor.device for name, tensor in floats.items()}
        self.args = with_leaves(every, {name: self.array(t) for name, t in floats.items()})

    @contextmanager
    def settings(self) -> Generator[None]:
        """Use one thread, which is faster for small tensors, and restore the random numbers."""
        threads, state = self.torch.get_num_threads(), self.torch.get_rng_state()
        self.torch.set_num_threads(1)
        try:
            yield
        finally:
            self.torch.set_num_threads(threads)
            self.torch.set_rng_state(state)

    def array(self, value: Any) -> np.ndarray:
        """Return a tensor as an array of float64."""
        return value.detach().to("cpu", self.torch.float64).numpy().copy()

    def forward(self, **args: Any) -> tuple[Any, Any]:
        """Run the function with tensors of float64 and the same random numbers each time."""
        torch = self.torch
        inputs = {
            name: torch.tensor(np.array(leaf, order="C"), device=self.devices[name])
            for name, leaf in leaves(args).items()
            if name in self.devices
        }
        for name in self.wrt:
            inputs[name].requires_grad_()
        # The arguments of an operation are no leaves of its graph, so it may change them in place.
        passed = with_leaves(
            args, {n: t.clone() if n in self.wrt else t for n, t in inputs.items()}
        )
        torch.set_rng_state(self.random)
        returned = self.call([passed[name] for name in self.given], passed[PARAMETERS])
        outputs = {
            name: out
            for name, out in leaves({"out": returned}).items()
            if isinstance(out, torch.Tensor) and out.is_floating_point() and out.requires_grad
        }
        return self.shown(returned, outputs), (inputs, outputs)

    def call(self, inputs: list[Any], parameters: Mapping[str, Any]) -> Any:
        """Call the function, a module with other parameters."""
        if self.module is None:
            return self.fn(*inputs)
        buffers = {
            name: buffer.to(self.torch.float64) if buffer.is_floating_point() else buffer.clone()
            for name, buffer in self.module.named_buffers()
        }
        state = {**parameters, **{name: b.clone() for name, b in buffers.items()}}
        return self.torch.func.functional_call(self.module, state, tuple(inputs))

    def backward(self, douts: Any, saved: Any) -> dict[str, np.ndarray]:
        """Return the gradients by torch.autograd; those of unused inputs are zero."""
        inputs, outputs = saved
        given = leaves({"out": douts})
        upstream = [self.upstream(given[name], out.device) for name, out in outputs.items()]
        found = self.torch.autograd.grad(
            [*outputs.values()], [inputs[name] for name in self.wrt], upstream,
            retain_graph=True, materialize_grads=True,
        )  # fmt: skip
        return {name: self.array(each) for name, each in zip(self.wrt, found, strict=True)}

    def upstream(self, dout: np.ndarray, device: Any) -> Any:
        """Return an upstream gradient as a tensor with the same strides, if PyTorch has them."""
        array = dout.copy() if min(dout.strides, default=0) < 0 else dout
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The array may be read-only.
            return self.torch.as_tensor(array, device=device)


class JaxFunction(LibraryFunction):
    """A function of JAX arrays."""

    def __init__(self, fn: Any, args: tuple[Any, ...]) -> None:
        try:
            import jax  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError(INSTALL.format("JAX", "jax")) from None
        self.jax: Any = jax
        check_callable("fn", fn)
        self.fn, given = fn, named(fn, args)
        floats = {name: leaf for name, leaf in leaves(given).items() if self.is_floating(leaf)}
        self.wrt = tuple(floats)
        self.promoted = tuple(name for name, leaf in floats.items() if leaf.dtype != np.float64)
        self.args = with_leaves(given, {name: self.array(x) for name, x in floats.items()})

    def is_floating(self, leaf: Any) -> bool:
        """Return whether a leaf is an array of floats, of JAX or NumPy."""
        return hasattr(leaf, "dtype") and self.jax.numpy.issubdtype(leaf.dtype, np.floating)

    def settings(self) -> AbstractContextManager[Any]:
        """Let JAX compute in float64."""
        return self.jax.enable_x64(True)

    def outputs(
        self, args: Mapping[str, Any], values: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return what the function returns for replaced leaves, and its outputs of floats."""
        returned = self.fn(*with_leaves(args, values).values())
        every = leaves({"out": returned})
        return returned, {name: out for name, out in every.items() if self.is_floating(out)}

    def forward(self, **args: Any) -> tuple[Any, Any]:
        """Run the function with arrays of float64."""
        floats = {name: leaf for name, leaf in leaves(args).items() if name in self.wrt}
        values = {name: self.jax.numpy.asarray(leaf) for name, leaf in floats.items()}
        returned, outputs = self.outputs(args, values)
        return self.shown(returned, outputs), (args, values)

    def array(self, value: Any) -> np.ndarray:
        """Return a JAX array as an array of float64."""
        return np.array(value, np.float64)

    def backward(self, douts: Any, saved: Any) -> dict[str, np.ndarray]:
        """Return the gradients by jax.vjp."""
        args, values = saved

        def function(values: Any) -> Any:
            return self.outputs(args, values)[1]

        outputs, pullback = self.jax.vjp(function, values)
        given = leaves({"out": douts})
        upstream = {
            name: self.jax.numpy.asarray(given[name], out.dtype) for name, out in outputs.items()
        }
        (found,) = pullback(upstream)
        return {name: self.array(found[name]) for name in self.wrt}


def name_of(fn: Any) -> str:
    """Return the name of a function, or of the class of an object."""
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, type):  # The method apply of a torch.autograd.Function.
        return owner.__name__
    return getattr(getattr(fn, "func", fn), "__name__", type(fn).__name__)
