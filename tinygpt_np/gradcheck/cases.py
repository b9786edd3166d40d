"""How to call each operation at generic values: one entry a variant, for whatever loops over them.

Values are of order one, all dimensions differ, ids repeat and leave some out, and one target is not
counted. What looks right only because two sizes agree, or a weight is 1, looks wrong here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.measure import CheckError, Method
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.gradcheck.trial import Trial

Args = dict[str, Any]
# The sizes of the letters in the shapes; see ops/__init__.py for what they mean.
SIZES = {"B": 2, "T": 3, "H": 4, "D": 5, "N": 6, "C": 8, "K": 7, "V": 11}


class Draw:
    """Random arguments. sizes: by letter. normal, mask: of a shape given by letters, as "NC"."""

    def __init__(self, sizes: dict[str, int], rng: np.random.Generator) -> None:
        self.sizes, self.rng = sizes, rng

    def shape(self, letters: str) -> tuple[int, ...]:
        return tuple(self.sizes[letter] for letter in letters)

    def normal(self, letters: str) -> np.ndarray:
        return self.rng.standard_normal(self.shape(letters))

    def mask(self, letters: str) -> np.ndarray:
        """A dropout mask that drops a third."""
        return np.where(self.rng.random(self.shape(letters)) < 1 / 3, 0.0, 1.5)

    def ids(self) -> np.ndarray:
        """Token ids (N,), of which the second repeats the first; the highest never occurs."""
        N, V = self.shape("NV")
        ids = self.rng.integers(0, max(V - 1, 1), N)
        ids[1:2] = ids[0]
        return ids

    def targets(self) -> np.ndarray:
        """Targets (N,), of which the second is not counted, if there is one."""
        targets = self.rng.integers(0, self.sizes["V"], self.sizes["N"])
        targets[1:2] = -1
        return targets

    def attention(self) -> Args:
        B, T, H, D = self.shape("BTHD")
        qkv = self.rng.standard_normal((B * T, 3 * H * D))
        return {"qkv": qkv, "batch": B, "n_head": H}


@dataclass(frozen=True)
class Variant:
    """One way to call an operation. letters: the sizes it depends on."""

    operation: str
    letters: str
    differentiable: tuple[str, ...]
    args: Callable[[Draw], Args]


AFFINE = ("x", "weight", "bias")
VARIANTS = {
    "embedding": Variant(
        "embedding", "NCV", ("weight",), lambda d: {"ids": d.ids(), "weight": d.normal("VC")}
    ),
    "linear": Variant(
        "linear", "NCK", AFFINE,
        lambda d: {"x": d.normal("NC"), "weight": d.normal("CK"), "bias": d.normal("K")},
    ),
    "linear-no-bias": Variant(
        "linear", "NCK", AFFINE[:2], lambda d: {"x": d.normal("NC"), "weight": d.normal("CK")}
    ),
    "layer_norm": Variant(
        "layer_norm", "NC", AFFINE,
        lambda d: {"x": d.normal("NC"), "weight": d.normal("C"), "bias": d.normal("C")},
    ),
    "layer_norm-no-bias": Variant(
        "layer_norm", "NC", AFFINE[:2], lambda d: {"x": d.normal("NC"), "weight": d.normal("C")}
    ),
    "gelu": Variant("gelu", "NC", ("x",), lambda d: {"x": 2 * d.normal("NC")}),
    "gelu_exact": Variant("gelu_exact", "NC", ("x",), lambda d: {"x": 2 * d.normal("NC")}),
    "softmax": Variant("softmax", "BTV", ("x",), lambda d: {"x": d.normal("BTV")}),
    "dropout": Variant(
        "dropout", "NT", ("x",), lambda d: {"x": d.normal("NT"), "mask": d.mask("NT")}
    ),
    "dropout-no-mask": Variant("dropout", "NT", ("x",), lambda d: {"x": d.normal("NT")}),
    "attention": Variant(
        "attention", "BTHD", ("qkv",), lambda d: {**d.attention(), "mask": d.mask("BHTT")}
    ),
    "attention-no-mask": Variant("attention", "BTHD", ("qkv",), Draw.attention),
    "cross_entropy": Variant(
        "cross_entropy", "NV", ("logits",),
        lambda d: {"logits": d.normal("NV"), "targets": d.targets()},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A call of an operation. args: of forward, by name; differentiable: which have a gradient."""

    name: str
    operation: str
    args: Args
    differentiable: tuple[str, ...]
    seed: int

    @property
    def module(self) -> ModuleType:
        return getattr(ops, self.operation)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arguments that are arrays."""
        return {name: arg for name, arg in self.args.items() if isinstance(arg, np.ndarray)}

    def as_dtype(self, dtype: Any) -> dict[str, np.ndarray]:
        """The arrays of floats among the arguments, in another dtype."""
        floats = {n: a for n, a in self.arrays.items() if np.issubdtype(a.dtype, np.floating)}
        return {name: array.astype(dtype) for name, array in floats.items()}

    def forward(self, **changed: np.ndarray) -> np.ndarray:
        """The output, with some arguments replaced."""
        return self.module.forward(**(self.args | changed))[0]

    def gradients(
        self, backward: Callable[..., Any], doutput: np.ndarray, **changed: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What a backward of the operation returns, by the name of the argument."""
        _, saved = self.module.forward(**(self.args | changed))
        returned: Any = backward(doutput, saved)
        parts = cast(tuple[Any, ...], returned if isinstance(returned, tuple) else (returned,))
        named = zip(self.differentiable, (p for p in parts if p is not None), strict=True)
        return dict(named)

    def backwards(self) -> list[Callable[..., Any]]:
        """backward, and backward_steps where there is one."""
        names = ("backward", "backward_steps")
        return [getattr(self.module, name) for name in names if hasattr(self.module, name)]

    def trial(
        self, method: Method = "complex", dtype: str = "float64", backend: str = "numpy"
    ) -> Trial:
        """A trial of the operation in a backend; the truth is always that of ops/ in float64."""
        forward = getattr(backends.load(backend), self.operation).forward
        return Trial(
            forward, {**self.args, **self.as_dtype(dtype)}, self.differentiable,
            method=method, seed=self.seed, truth=self.module.forward, title=self.name,
        )  # fmt: skip


def case(name: str, seed: int = 0, sizes: dict[str, int] | None = None) -> Case:
    """The variant called `name`, at the usual sizes or some others: case("linear", 0, {"N": 1})."""
    if name not in VARIANTS:
        raise CheckError(f"the operation must be one of {', '.join(VARIANTS)}, not {name!r}")
    variant = VARIANTS[name]
    for letter, size in (sizes or {}).items():
        if letter not in variant.letters:
            raise CheckError(f"the sizes of {name} are {', '.join(variant.letters)}, not {letter}")
        if size < 1:
            raise CheckError(f"{letter} must be positive, not {size}")
    # Not from the generator of the upstream gradient, which would begin with the same numbers.
    args = variant.args(Draw(SIZES | (sizes or {}), generator(seed, "data")))
    return Case(name, variant.operation, args, variant.differentiable, seed)


def check_operation(
    name: str,
    *,
    method: Method = "complex",
    dtype: str = "float64",
    backend: str = "numpy",
    seed: int = 0,
    sizes: dict[str, int] | None = None,
) -> list[Report]:
    """Checks an operation's backward, and backward_steps where there is one, at some sizes."""
    sizes = sizes or {}
    chosen = case(name, seed, sizes)
    trial = chosen.trial(method, dtype, backend)
    module = getattr(backends.load(backend), chosen.operation)
    reports: list[Report] = []
    for function in ("backward", "backward_steps"):
        if hasattr(module, function):
            suffix = ", in steps" if function == "backward_steps" else ""
            where = "".join(f", {letter}={size}" for letter, size in sizes.items())
            where += "" if dtype == "float64" else f", {dtype}"
            where += "" if backend == "numpy" else f", {backend}"
            reports.append(trial.report(getattr(module, function), f"{name}{suffix}{where}"))
    return reports


CASES = [case(name) for name in VARIANTS]
