"""GPT-2's checkpoints of transformers: the same logits, loss, gradients and texts on both sides."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.optional import needs

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model.sampling import weights

torch: Any = needs("torch")
transformers: Any = needs("transformers")

# Layers, heads, width, positions, vocabulary, activation: no two alike.
SIZES = {
    "small": (2, 3, 12, 9, 17, "gelu_new"),
    "exact": (3, 2, 26, 16, 101, "gelu"),
    "wide": (1, 5, 160, 70, 333, "gelu_pytorch_tanh"),
}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What they warn of, and the progress they show, is their own affair."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def theirs(size: tuple[Any, ...], scale: float | None = 1.0) -> Any:
    """A model of theirs at generic values; scale None leaves their initial ones."""
    layers, heads, width, positions, vocab_size, activation = size
    config = transformers.GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, n_positions=positions, vocab_size=vocab_size,
        activation_function=activation, bos_token_id=None, eos_token_id=None,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(config).eval()
    if scale is not None:
        with torch.no_grad():
            for name, param in model.named_parameters():
                fan_in = param.shape[0] if ".c_" in name and param.ndim == 2 else 1
                param.copy_(scale * torch.randn(param.shape) / fan_in**0.5)
    return model


def batch(model: Any, time: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, count, time))
    targets[0, :2] = -1
    return tokens, targets


def their_loss_and_grads(
    model: Any, tokens: np.ndarray, targets: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    logits = model(torch.from_numpy(tokens)).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets.reshape(-1)), ignore_index=-1
    )
    model.zero_grad()
    loss.backward()
    named = {name.removeprefix("transformer."): p.grad for name, p in model.named_parameters()}
    return loss.item(), {name: grad.numpy() for name, grad in named.items()}


def compare(model: Any, ours: GPT, grads_of: Any, bound: float, time: int, count: int = 2) -> None:
    """Logits, the loss and every gradient, tensor by tensor, relative to its norm."""
    tokens, targets = batch(model, time, count)
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    assert relative_error(ours.logits(tokens), expected) < bound
    loss, grads = grads_of(tokens, targets)
    their_loss, their_grads = their_loss_and_grads(model, tokens, targets)
    assert loss == pytest.approx(their_loss, rel=bound)
    assert sorted(grads) == sorted(their_grads)
    for name, grad in their_grads.items():
        if name.endswith("c_attn.bias"):
            # That of a key's is nothing but rounding: a constant added to all scores changes none.
            width = grad.shape[0] // 3
            kept = np.r_[0:width, 2 * width : 3 * width]
            assert relative_error(grads[name][kept], grad[kept]) < bound, name
            scale = np.linalg.norm(grad[kept])
            assert np.abs(grads[name][width : 2 * width]).max() < bound * scale
            continue
        assert relative_error(grads[name], grad) < bound, name


@every_size
def test_in_float64_all_agree_to_ten_digits(tmp_path: Path, size: tuple[Any, ...]) -> None:
    model = theirs(size).double()
    model.save_pretrained(tmp_path / "gpt")
    ours = GPT.from_pretrained(tmp_path / "gpt", dtype="float64")
    compare(model, ours, ours.loss_and_grads, 1e-10, size[3])


@every_size
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_in_float32_all_agree_to_four_digits(
    tmp_path: Path, size: tuple[Any, ...], backend: str
) -> None:
    model = theirs(size)
    model.save_pretrained(tmp_path / "gpt")
    ours = GPT.from_pretrained(tmp_path / "gpt", backend=backend)
    if backend == "numpy":
        compare(model, ours, ours.loss_and_grads, 1e-4, size[3])
        return
    with CompiledEngine(ours, 2, 2) as engine:
        compare(model, ours, engine.loss_and_grads, 1e-4, size[3])


def their_text(model: Any, prompt: np.ndarray, count: int) -> list[int]:
    given = torch.from_numpy(prompt)[None]
    with torch.inference_mode():
        made = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False,
            use_cache=True, pad_token_id=0,
        )  # fmt: skip
    return made[0, len(prompt) :].tolist()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_fifty_greedy_tokens_are_the_same(tmp_path: Path, backend: str, activation: str) -> None:
    model = theirs((3, 4, 32, 64, 101, activation))
    model.save_pretrained(tmp_path / "gpt")
    ours = GPT.from_pretrained(tmp_path / "gpt", backend=backend)
    prompt = np.random.default_rng(5).integers(0, 101, 9)
    made = [int(token) for token in ours.generate(prompt, 50, temperature=0)]
    assert made == their_text(model, prompt, 50)
    assert len(set(made)) > 5  # No rut in which anything would agree.


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 50, 0.9), (0.7, 7, 0.5), (1.6, 100, 0.99)]
)
def test_tokens_are_drawn_with_the_same_probabilities(
    temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.default_rng(8).standard_normal((5, 101))
    scores: Any = torch.from_numpy(logits)
    for warper in (
        transformers.TemperatureLogitsWarper(temperature),
        transformers.TopKLogitsWarper(top_k),
        transformers.TopPLogitsWarper(top_p),
    ):
        scores = warper(None, scores)
    ours = weights(logits, temperature, top_k, top_p)
    expected = torch.softmax(scores, dim=-1).numpy()
    np.testing.assert_allclose(ours / ours.sum(axis=-1, keepdims=True), expected, rtol=1e-12)
    assert (expected > 0).any(axis=-1).all()
    assert not (expected > 0).all()


@every_size
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_we_write_they_read_unchanged(
    tmp_path: Path, size: tuple[Any, ...], dtype: str
) -> None:
    layers, heads, width, positions, vocab_size, activation = size
    config = GPTConfig(
        n_layer=layers, n_head=heads, n_embd=width, block_size=positions, vocab_size=vocab_size,
        bias=layers != 1, gelu="exact" if activation == "gelu" else "tanh",
    )  # fmt: skip
    ours, rng = GPT(config, dtype=dtype), np.random.default_rng(6)
    for name, param in ours.params.items():
        ours.params[name] = rng.standard_normal(param.shape).astype(dtype)
    ours.save_pretrained(tmp_path / "gpt")
    model, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "gpt", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, _ = batch(model, positions)
    with torch.inference_mode():
        found = model.eval()(torch.from_numpy(tokens)).logits.numpy()
    assert found.dtype == dtype
    bound = 1e-4 if dtype == "float32" else 1e-10
    assert relative_error(ours.logits(tokens), found) < bound


def test_the_shape_of_the_smallest_gpt2(tmp_path: Path) -> None:
    model = theirs((12, 12, 768, 1024, 50257, "gelu_new"), scale=None)
    model.save_pretrained(tmp_path / "gpt")
    ours = GPT.from_pretrained(tmp_path / "gpt", backend="numba")
    assert sum(param.size for param in ours.params.values()) == 124_439_808
    prompt = np.random.default_rng(7).integers(0, 50257, 5)
    made = [int(token) for token in ours.generate(prompt, 50, temperature=0)]
    assert made == their_text(model, prompt, 50)
    with CompiledEngine(ours, 1, 2) as engine:
        compare(model, ours, engine.loss_and_grads, 1e-4, 33, 1)
    del model, ours, engine
    gc.collect()
