"""Tensors that do not fit the model: which is named, and how."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.storage import checkpoint
from tinygpt_np.storage.checkpoint import CheckpointError

CONFIG = GPTConfig(vocab_size=5, block_size=3, n_layer=1, n_head=2, n_embd=4, bias=True)


SHAPES: dict[str, tuple[int, ...]] = {"wte.weight": (5, 4), "ln_f.bias": (4,)}


def params(seed: int = 1, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(shape).astype(dtype) for n, shape in SHAPES.items()}


def mismatch(found: dict[str, np.ndarray]) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.matching(found, SHAPES.items(), "float32", Path("a/model.safetensors"))
    return str(caught.value)


def test_a_missing_tensor_is_named_with_its_shape() -> None:
    message = mismatch({"wte.weight": params()["wte.weight"]})
    assert message == "a/model.safetensors lacks the tensor ln_f.bias (4,)"


def test_an_extra_tensor_is_named() -> None:
    assert "has the tensor h.0.ln_1.bias (4,), which" in mismatch(
        {**params(), "h.0.ln_1.bias": np.zeros(4)}
    )


def test_a_wrong_shape_is_named_beside_the_right_one() -> None:
    message = mismatch({**params(), "ln_f.bias": np.zeros(3, np.float32)})
    assert message.endswith("ln_f.bias should be (4,) float32, but is (3,) float32")


def test_a_wrong_dtype_is_named_beside_the_right_one() -> None:
    message = mismatch(params(dtype="float64"))
    assert message.endswith("wte.weight should be (5, 4) float32, but is (5, 4) float64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named(value: float) -> None:
    found = params()
    found["ln_f.bias"][2] = value
    assert mismatch(found).endswith("model.safetensors: ln_f.bias has values that are not finite")


def test_of_several_wrong_tensors_the_models_first_is_named() -> None:
    wrong = {"ln_f.bias": np.zeros(3, np.float32), "wte.weight": np.zeros((5, 3), np.float32)}
    assert "wte.weight should be" in mismatch(wrong)


def test_matching_tensors_come_in_the_expected_order() -> None:
    found = dict(reversed(params().items()))
    assert list(checkpoint.matching(found, SHAPES.items(), "float32", Path("x"))) == list(params())


@pytest.mark.parametrize("name", ["wte.weight", "h.0.attn.c_attn.bias", "ln_f.weight"])
def test_a_gpt_that_lacks_a_tensor_names_it_and_the_file(tmp_path: Path, name: str) -> None:
    tensors = GPT(CONFIG).params
    del tensors[name]
    checkpoint.save_model(tmp_path / "model", CONFIG, tensors)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors lacks the tensor {name}"):
        GPT.load(tmp_path / "model")


def test_a_gpt_in_half_precision_is_refused_with_the_file_named(tmp_path: Path) -> None:
    tensors = {name: tensor.astype(np.float16) for name, tensor in GPT(CONFIG).params.items()}
    checkpoint.save_model(tmp_path / "model", CONFIG, tensors)
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*float16"):
        GPT.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"n_layer": 2}, r"h\.1\.ln_1\.weight"),
        ({"n_embd": 6}, r"wte\.weight"),
        ({"block_size": 8}, r"wpe\.weight"),
        ({"bias": False}, r"has the tensor .*\.bias"),
    ],
)
def test_the_config_of_another_architecture_is_found_by_its_tensors(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    checkpoint.save_model(tmp_path / "model", replace(CONFIG, **changed), GPT(CONFIG).params)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*{named}"):
        GPT.load(tmp_path / "model")
