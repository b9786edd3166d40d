"""Every value of every field that selects a part of a GPT, one at a time and combined at random."""

from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np import GPTConfig

# The values of each field, the default first; numbers far from the default, so that ignoring them
# shows. n_head must be a multiple of 2.
VALUES: dict[str, tuple[Any, ...]] = {
    "n_kv_head": (0, 1, 2),
    "n_inner": (0, 13),
    "bias": (False, True),
    "norm": ("layer_norm", "rms_norm"),
    "norm_epsilon": (1e-5, 0.3),
    "positions": ("learned", "rotary_halves", "rotary_pairs"),
    "rope_theta": (10_000.0, 30.0),
    "qk_norm": (False, True),
    "activation": ("gelu", "gelu_exact", "relu", "relu_squared", "silu", "swiglu"),
    "tied_head": (True, False),
    "logit_soft_cap": (0.0, 3.7),
}


def one_by_one(config: GPTConfig) -> dict[str, GPTConfig]:
    """Return a configuration for each value of each field but the defaults, by name."""
    changes: dict[str, dict[str, Any]] = {
        f"{field}={value}": {field: value}
        for field, values in VALUES.items()
        for value in values[1:]
    }
    # Fields that another one must use.
    changes["rope_theta=30.0"]["positions"] = "rotary_halves"
    changes["qk_norm=True"]["norm_epsilon"] = 0.3
    return {name: replace(config, **change) for name, change in changes.items()}


def combined(config: GPTConfig, seed: int) -> GPTConfig:
    """Return the configuration with a random value for each field."""
    rng = np.random.default_rng(seed)
    return replace(
        config, **{field: values[rng.integers(len(values))] for field, values in VALUES.items()}
    )
