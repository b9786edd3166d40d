"""Models of transformers with weights of order one, and their comparison with ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.optional import needs

from tinygpt_np import GPT
from tinygpt_np.storage.parameters import Tensors


def randomized(model: Any) -> Any:
    """Give a model of transformers generic weights, of which those of the blocks matter most.

    With larger biases or a larger embedding, greedy samples repeat a token.
    """
    torch: Any = needs("torch")
    torch.manual_seed(3)
    with torch.no_grad():
        for name, param in model.named_parameters():
            size = 0.2 if name.endswith(".bias") else 1
            # Conv1D of GPT-2 is (in, out), nn.Linear (out, in); embeddings and heads are neither.
            if param.ndim == 2 and (".c_" in name or "_proj" in name):
                size = 2 / param.shape[0 if ".c_" in name else 1] ** 0.5
            param.copy_(torch.randn(param.shape) * size)
    return model.eval()


def compare(
    model: Any, loaded: GPT, to_params: Callable[[Tensors], Tensors], grads_of: Any, bound: float,
    time: int,
) -> None:  # fmt: skip
    """Compare logits, loss and every gradient, each relative to its norm."""
    torch: Any = needs("torch")
    rng = np.random.default_rng(4)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, time))
    targets[0, :2] = -1
    model.zero_grad()
    logits = model(torch.from_numpy(tokens)).logits
    assert relative_error(loaded.logits(tokens), logits.detach().numpy()) < bound
    expected_loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets.reshape(-1)), ignore_index=-1
    )
    expected_loss.backward()
    loss, grads = grads_of(tokens, targets)
    assert loss == pytest.approx(expected_loss.item(), rel=bound)
    expected = to_params({name: param.grad.numpy() for name, param in model.named_parameters()})
    assert sorted(grads) == sorted(expected)
    for name, grad in expected.items():
        # In c_attn.bias, the gradient of the keys is zero except for rounding.
        assert relative_error(grads[name], grad) < bound, name


def assert_same_greedy_tokens(model: Any, loaded: GPT, count: int = 50) -> None:
    """Compare greedy samples, all within the longest context."""
    torch: Any = needs("torch")
    prompt = torch.from_numpy(np.random.default_rng(7).integers(0, loaded.vocab_size, 5))
    greedy = model.generate(
        prompt[None], attention_mask=torch.ones(1, 5), max_new_tokens=count, do_sample=False,
        use_cache=True, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    expected = greedy[0, 5:].tolist()
    assert len(expected) == count
    assert len({*expected}) > 10  # A few tokens over and over would prove little.
    assert list(loaded.generate(prompt.numpy(), count, temperature=0)) == expected


def reloaded(kind: Any, folder: Path) -> Any:
    """Load a folder with transformers, which must find exactly the tensors that it needs."""
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()
