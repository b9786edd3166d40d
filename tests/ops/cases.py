"""One entry an operation: how to call it at generic values. Tests of all operations loop over them.

All dimensions differ (see the constants), values are of order one, ids repeat and leave some out,
and one target is not counted.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np

rng = np.random.default_rng(20240117)
B, T, H, D, N, C, K, V = 2, 3, 4, 5, 6, 8, 7, 11


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


@dataclass(frozen=True)
class Case:
    """name: for the test's id. args: of forward, by name. differentiable: which have a gradient."""

    operation: str
    name: str
    args: dict[str, Any]
    differentiable: tuple[str, ...]

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"tinygpt_np.ops.{self.operation}")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arguments that are arrays."""
        return {name: arg for name, arg in self.args.items() if isinstance(arg, np.ndarray)}

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


IDS = np.array([3, 0, 3, 9, 3, 0])  # (N,)
TARGETS = np.array([4, -1, 0, 4, 10, 2])  # (N,)
MASK = rng.permutation(np.repeat([0.0, 1.25], [6, 12])).reshape(N, T)
ATTENTION_MASK = rng.permutation(np.repeat([0.0, 1.5], [24, 48])).reshape(B, H, T, T)
QKV = normal(B * T, 3 * H * D)

CASES = [
    Case("embedding", "embedding", {"ids": IDS, "weight": normal(V, C)}, ("weight",)),
    Case(
        "linear",
        "linear",
        {"x": normal(N, C), "weight": normal(C, K), "bias": normal(K)},
        ("x", "weight", "bias"),
    ),
    Case("linear", "linear-no-bias", {"x": normal(N, C), "weight": normal(C, K)}, ("x", "weight")),
    Case(
        "layer_norm",
        "layer_norm",
        {"x": normal(N, C), "weight": normal(C), "bias": normal(C)},
        ("x", "weight", "bias"),
    ),
    Case(
        "layer_norm",
        "layer_norm-no-bias",
        {"x": normal(N, C), "weight": normal(C)},
        ("x", "weight"),
    ),
    Case("gelu", "gelu", {"x": 2 * normal(N, C)}, ("x",)),
    Case("gelu_exact", "gelu_exact", {"x": 2 * normal(N, C)}, ("x",)),
    Case("softmax", "softmax", {"x": normal(B, T, V)}, ("x",)),
    Case("dropout", "dropout", {"x": normal(N, T), "mask": MASK}, ("x",)),
    Case("dropout", "dropout-no-mask", {"x": normal(N, T)}, ("x",)),
    Case(
        "attention",
        "attention",
        {"qkv": QKV, "batch": B, "n_head": H, "mask": ATTENTION_MASK},
        ("qkv",),
    ),
    Case("attention", "attention-no-mask", {"qkv": QKV, "batch": B, "n_head": H}, ("qkv",)),
    Case(
        "cross_entropy",
        "cross_entropy",
        {"logits": normal(N, V), "targets": TARGETS},
        ("logits",),
    ),
]
IDS_OF_CASES = [case.name for case in CASES]
