"""The contents of nanoGPT's ckpt.pt, for a model of one layer."""

import importlib
from typing import Any

import numpy as np

V, T, C = 18, 8, 8
ARGUMENTS = {
    "n_layer": 1, "n_head": 2, "n_embd": C, "block_size": T, "bias": True, "vocab_size": V,
    "dropout": 0.0,
}  # fmt: skip
LINEAR = {
    "attn.c_attn": (3 * C, C),
    "attn.c_proj": (C, C),
    "mlp.c_fc": (4 * C, C),
    "mlp.c_proj": (C, 4 * C),
}
Contents = dict[str, Any]


def torch() -> Any:
    return importlib.import_module("torch")


def contents() -> Contents:
    """Return what nanoGPT saves of a model of one layer; the head is the table."""
    rng = np.random.default_rng(0)

    def tensor(*shape: int) -> Any:
        return torch().from_numpy(rng.standard_normal(shape).astype(np.float32) * 0.1)

    model = {"transformer.wte.weight": tensor(V, C), "transformer.wpe.weight": tensor(T, C)}
    norms = {f"h.0.{name}": (C,) for name in ("ln_1", "ln_2")} | {"ln_f": (C,)}
    for name, shape in {**{f"h.0.{n}": s for n, s in LINEAR.items()}, **norms}.items():
        model[f"transformer.{name}.weight"] = tensor(*shape)
        model[f"transformer.{name}.bias"] = tensor(shape[0])
    model["lm_head.weight"] = model["transformer.wte.weight"]
    rest = {"iter_num": 100, "best_val_loss": torch().tensor(1.5), "config": {"dataset": "x"}}
    return {"model": model, "model_args": dict(ARGUMENTS), "optimizer": {"state": {}}, **rest}
