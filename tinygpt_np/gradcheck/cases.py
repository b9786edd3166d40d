"""Arguments for every operation at generic values, for the checks and tests that loop over them.

Values are of order one, all dimensions differ, some ids repeat and some never occur, and one target
is ignored. A gradient that is right only because two sizes are equal, or a weight is 1, is wrong
here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np import ops
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.function_check import FunctionCheck
from tinygpt_np.gradcheck.measure import CheckError, Method
from tinygpt_np.gradcheck.report import Report

Args = dict[str, Any]
# The size of each letter in a shape; ops/__init__.py says what the letters mean.
SIZES = {
    "B": 2, "T": 3, "H": 4, "D": 5, "N": 6, "C": 8, "K": 7, "V": 11, "P": 6, "F": 9, "J": 4, "R": 6,
}  # fmt: skip


class Draw:
    """Random arguments of the given sizes, by letter. Shapes are strings of letters: "NC"."""

    def __init__(self, sizes: dict[str, int], rng: np.random.Generator) -> None:
        self.sizes, self.rng = sizes, rng

    def shape(self, letters: str) -> tuple[int, ...]:
        """Return the sizes of these letters."""
        return tuple(self.sizes[letter] for letter in letters)

    def normal(self, letters: str) -> np.ndarray:
        """Return standard normal values."""
        return self.rng.standard_normal(self.shape(letters))

    def mask(self, letters: str) -> np.ndarray:
        """Return a dropout mask with p = 1/3."""
        return np.where(self.rng.random(self.shape(letters)) < 1 / 3, 0.0, 1.5)

    def ids(self) -> np.ndarray:
        """Return token ids (N,); the second repeats the first, and the highest never occurs."""
        N, V = self.shape("NV")
        ids = self.rng.integers(0, max(V - 1, 1), N)
        ids[1:2] = ids[0]
        return ids

    def targets(self) -> np.ndarray:
        """Return targets (N,); the second, if there is one, is ignored."""
        targets = self.rng.integers(0, self.sizes["V"], self.sizes["N"])
        targets[1:2] = -1
        return targets

    def qkv(self, heads: int) -> np.ndarray:
        """Return rows (N, heads·D) of queries, keys and values for attention."""
        B, T, D = self.shape("BTD")
        return self.rng.standard_normal((B * T, heads * D))

    def halves(self) -> np.ndarray:
        """Return the two halves (N, 2F) for a gated activation."""
        N, F = self.shape("NF")
        return 2 * self.rng.standard_normal((N, 2 * F))

    def pairs(self) -> np.ndarray:
        """Return heads (B, T, H, 2P) whose channels are pairs."""
        B, T, H, P = self.shape("BTHP")
        return self.rng.standard_normal((B, T, H, 2 * P))

    def positions(self) -> np.ndarray:
        """Return positions (T,); they start after 0 and leave gaps."""
        return 2 + 3 * np.arange(self.sizes["T"])


@dataclass(frozen=True)
class Variant:
    """A way to call an operation."""

    operation: str
    # The sizes that its arguments depend on.
    letters: str
    differentiable: tuple[str, ...]
    # The shape of each normal array, or a function that draws or returns the argument.
    args: dict[str, str | Callable[[Draw], Any]]


AFFINE = ("x", "weight", "bias")
ATTENTION: dict[str, str | Callable[[Draw], Any]] = {
    "qkv": lambda d: d.qkv(3 * d.sizes["H"]),
    "batch": lambda d: d.sizes["B"],
    "n_head": lambda d: d.sizes["H"],
}
# H = J·R heads of queries.
GROUPED: dict[str, str | Callable[[Draw], Any]] = {
    "qkv": lambda d: d.qkv(d.sizes["J"] * (d.sizes["R"] + 2)),
    "batch": lambda d: d.sizes["B"],
    "n_head": lambda d: d.sizes["J"] * d.sizes["R"],
    "mask": lambda d: np.concatenate([*d.mask("JBRTT")], axis=1),
    "n_kv_head": lambda d: d.sizes["J"],
}
ROTARY: dict[str, str | Callable[[Draw], Any]] = {
    "x": Draw.pairs,
    "positions": Draw.positions,
    "theta": lambda d: 50.0,
}
VARIANTS = {
    "embedding": Variant("embedding", "NCV", ("weight",), {"ids": Draw.ids, "weight": "VC"}),
    "linear": Variant("linear", "NCK", AFFINE, {"x": "NC", "weight": "CK", "bias": "K"}),
    "linear-no-bias": Variant("linear", "NCK", AFFINE[:2], {"x": "NC", "weight": "CK"}),
    "layer_norm": Variant("layer_norm", "NC", AFFINE, {"x": "NC", "weight": "C", "bias": "C"}),
    "layer_norm-no-bias": Variant(
        "layer_norm",
        "NC",
        AFFINE[:2],
        {"x": "NC", "weight": "C", "bias": lambda d: None, "epsilon": lambda d: 0.3},
    ),
    "gelu": Variant("gelu", "NC", ("x",), {"x": lambda d: 2 * d.normal("NC")}),
    "gelu_exact": Variant("gelu_exact", "NC", ("x",), {"x": lambda d: 2 * d.normal("NC")}),
    "silu": Variant("silu", "NC", ("x",), {"x": lambda d: 2 * d.normal("NC")}),
    "swiglu": Variant("swiglu", "NF", ("x",), {"x": Draw.halves}),
    "relu": Variant("relu", "NC", ("x",), {"x": "NC"}),
    "relu_squared": Variant("relu_squared", "NC", ("x",), {"x": "NC"}),
    "soft_cap": Variant("soft_cap", "NV", ("x",), {"x": "NV", "cap": lambda d: 1.5}),
    "rms_norm": Variant("rms_norm", "BTC", AFFINE[:2], {"x": "BTC", "weight": "C"}),
    "rms_norm-no-weight": Variant(
        "rms_norm", "BTC", ("x",), {"x": "BTC", "weight": lambda d: None, "epsilon": lambda d: 0.3}
    ),
    "rotary": Variant("rotary", "BTHP", ("x",), ROTARY),
    "rotary-interleaved": Variant(
        "rotary", "BTHP", ("x",), {**ROTARY, "interleaved": lambda d: True}
    ),
    "softmax": Variant("softmax", "BTV", ("x",), {"x": "BTV"}),
    "dropout": Variant("dropout", "NT", ("x",), {"x": "NT", "mask": lambda d: d.mask("NT")}),
    "dropout-no-mask": Variant("dropout", "NT", ("x",), {"x": "NT"}),
    "attention": Variant(
        "attention", "BTHD", ("qkv",), {**ATTENTION, "mask": lambda d: d.mask("BHTT")}
    ),
    "attention-no-mask": Variant("attention", "BTHD", ("qkv",), ATTENTION),
    "attention-grouped": Variant("attention", "BTDJR", ("qkv",), GROUPED),
    "cross_entropy": Variant(
        "cross_entropy", "NV", ("logits",), {"logits": "NV", "targets": Draw.targets}
    ),
}


def variants_of(operation: str) -> list[str]:
    """Return the names of the variants of an operation."""
    return [name for name, variant in VARIANTS.items() if variant.operation == operation]


def as_tuple(returned: Any) -> tuple[Any, ...]:
    """Return the gradients that a backward returned as a tuple."""
    return cast(tuple[Any, ...], returned) if isinstance(returned, tuple) else (returned,)


@dataclass(frozen=True)
class Case:
    """A call of an operation. differentiable: the arguments that have a gradient."""

    name: str
    operation: str
    args: Args
    differentiable: tuple[str, ...]
    seed: int

    @property
    def module(self) -> ModuleType:
        """The module of the operation in ops/."""
        return getattr(ops, self.operation)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arguments that are arrays."""
        return {name: arg for name, arg in self.args.items() if isinstance(arg, np.ndarray)}

    def as_dtype(self, dtype: Any) -> dict[str, np.ndarray]:
        """Return the arguments that are arrays of floats, in another dtype."""
        return {n: a.astype(dtype) for n, a in self.arrays.items() if a.dtype.kind == "f"}

    def forward(self, **changed: np.ndarray) -> np.ndarray:
        """Return the output, with some arguments replaced."""
        return self.module.forward(**(self.args | changed))[0]

    def gradients(
        self, backward: Callable[..., Any], doutput: np.ndarray, **changed: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the gradients that a backward of the operation computes, by argument name."""
        _, saved = self.module.forward(**(self.args | changed))
        parts = (part for part in as_tuple(backward(doutput, saved)) if part is not None)
        return dict(zip(self.differentiable, parts, strict=True))

    def backwards(self) -> list[Callable[..., Any]]:
        """Return backward, and backward_steps if the operation has one."""
        names = ("backward", "backward_steps")
        return [getattr(self.module, name) for name in names if hasattr(self.module, name)]

    def check(
        self, method: Method = "complex", dtype: str = "float64", backend: str = "numpy"
    ) -> FunctionCheck:
        """Return the check of the operation in a backend, measured on ops/ in float64."""
        forward = getattr(backends.load(backend), self.operation).forward
        return FunctionCheck(
            forward, {**self.args, **self.as_dtype(dtype)}, self.differentiable,
            method=method, seed=self.seed, truth=self.module.forward, title=self.name,
        )  # fmt: skip


def case(name: str, seed: int = 0, sizes: dict[str, int] | None = None) -> Case:
    """Return the variant called `name`, with some sizes changed: case("linear", 0, {"N": 1})."""
    if name not in VARIANTS:
        raise CheckError(f"the operation must be one of {', '.join(VARIANTS)}, not {name!r}")
    variant = VARIANTS[name]
    for letter, size in (sizes or {}).items():
        if letter not in variant.letters:
            raise CheckError(f"the sizes of {name} are {', '.join(variant.letters)}, not {letter}")
        if size < 1:
            raise CheckError(f"{letter} must be positive, not {size}")
    # Another generator than that of the upstream gradient, or both would get the same numbers.
    draw = Draw(SIZES | (sizes or {}), generator(seed, "data"))
    args = {
        name: draw.normal(each) if isinstance(each, str) else each(draw)
        for name, each in variant.args.items()
    }
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
    """Check backward, and backward_steps if there is one, with some sizes changed."""
    chosen = case(name, seed, sizes)
    check = chosen.check(method, dtype, backend)
    module = getattr(backends.load(backend), chosen.operation)
    unusual = [f"{letter}={size}" for letter, size in (sizes or {}).items()]
    unusual += [each for each in (dtype, backend) if each not in ("float64", "numpy")]
    return [
        check.report(getattr(module, function), ", ".join([name, *form, *unusual]))
        for function, form in (("backward", []), ("backward_steps", ["in steps"]))
        if hasattr(module, function)
    ]


CASES = [case(name) for name in VARIANTS]
