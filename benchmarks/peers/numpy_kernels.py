"""NumPy's side of the kernels: the operations of tinygpt_np/ops, and products by its BLAS.

Products are told where to write. All else makes new arrays, as NumPy does, in the time that counts;
that what came out is copied to where the gate looks is not timed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way
from benchmarks.tasks import adamw as recipe
from benchmarks.tasks import plain
from tinygpt_np.model import optimizer as optim
from tinygpt_np.ops import attention, cross_entropy, gelu, layer_norm, softmax

Step = Callable[[], Any]


def collected(prepare: Callable[[Call], Step], *names: str) -> Way:
    """What the step returns, an array or several, is copied to the arrays of these names."""

    def collect(call: Call, returned: Any) -> None:
        found = returned if len(names) > 1 else (returned,)
        for name, array in zip(names, found, strict=True):
            call.arrays[name][...] = array.reshape(call.arrays[name].shape)

    return Way(prepare, collect=collect)


def first_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """The output, without what is saved."""
    return function(*arguments)[0]


def matmul_forward(call: Call) -> Step:
    return partial(np.matmul, call.inputs["x"], call.inputs["weight"], out=call.outputs["y"])


def matmul_dx(call: Call) -> Step:
    return partial(np.matmul, call.inputs["dy"], call.inputs["weight"].T, out=call.outputs["dx"])


def matmul_dweight(call: Call) -> Step:
    return partial(np.matmul, call.inputs["x"].T, call.inputs["dy"], out=call.outputs["dweight"])


def softmax_forward(call: Call) -> Step:
    return partial(first_of, softmax.forward, call.inputs["x"])


def softmax_backward(call: Call) -> Step:
    saved = call.inputs["probs"], None
    return partial(plain(softmax.backward), call.inputs["dprobs"], saved)


def attention_arguments(call: Call) -> tuple[np.ndarray, int, int]:
    """The rows (N, 3C) of qkv, B and H."""
    batch, n_head = call.sizes["B"], call.sizes["H"]
    return call.inputs["qkv"].reshape(batch * call.sizes["T"], -1), batch, n_head


def attention_forward(call: Call) -> Step:
    return partial(first_of, plain(attention.forward), *attention_arguments(call))


def attention_backward(call: Call) -> Step:
    rows, *others = attention_arguments(call)
    _, saved = plain(attention.forward)(rows, *others)
    return partial(plain(attention.backward), call.inputs["dy"].reshape(len(rows), -1), saved)


def layer_norm_forward(call: Call) -> Step:
    return partial(first_of, plain(layer_norm.forward), *call.inputs.values())


def layer_norm_backward(call: Call) -> Step:
    dy, x, weight = (call.inputs[name] for name in ("dy", "x", "weight"))
    _, saved = plain(layer_norm.forward)(x, weight, np.zeros_like(weight))
    return partial(plain(layer_norm.backward), dy, saved)


def gelu_forward(call: Call) -> Step:
    return partial(first_of, plain(gelu.forward), call.inputs["x"])


def gelu_backward(call: Call) -> Step:
    """From the tanh that the forward saved."""
    _, saved = plain(gelu.forward)(call.inputs["x"])
    return partial(plain(gelu.backward), call.inputs["dy"], saved)


def cross_entropy_both(call: Call) -> Step:
    forward, backward = plain(cross_entropy.forward), plain(cross_entropy.backward)
    logits, targets = call.inputs["logits"], call.inputs["targets"]

    def step() -> tuple[tuple[Any, ...], np.ndarray]:
        _, saved = forward(logits, targets)
        return saved, backward(1.0, saved)

    return step


def collect_cross_entropy(call: Call, returned: tuple[tuple[Any, ...], np.ndarray]) -> None:
    """The loss of each row, which the forward sums up, once more."""
    (log_probs, _, chosen, _, _), dlogits = returned
    call.outputs["losses"][...] = -(log_probs * chosen).sum(axis=-1)
    call.inputs["logits"][...] = dlogits


def adamw_update(call: Call) -> Step:
    """As one matrix of a row, for only matrices decay; in place."""
    param, grad, first, second = (
        call.inputs[name][None] for name in ("param", "grad", "first", "second")
    )
    params = {"w": param}
    optimizer = optim.AdamW(params, recipe.BETA1, recipe.BETA2, recipe.WEIGHT_DECAY)
    optimizer.first, optimizer.second = {"w": first}, {"w": second}

    def step() -> None:
        optimizer.steps = recipe.STEP - 1
        optimizer.update(params, {"w": grad * recipe.SCALE}, recipe.LEARNING_RATE)

    return step


WAYS = {
    "matmul": {
        "forward": Way(matmul_forward),
        "dx": Way(matmul_dx),
        "dweight": Way(matmul_dweight),
    },
    "softmax": {
        "forward": collected(softmax_forward, "probs"),
        "backward": collected(softmax_backward, "dx"),
    },
    "attention": {
        "forward": collected(attention_forward, "y"),
        "backward": collected(attention_backward, "dqkv"),
    },
    "cross_entropy": {
        "loss and gradient": Way(cross_entropy_both, collect=collect_cross_entropy),
    },
    "layer_norm": {
        "forward": collected(layer_norm_forward, "y"),
        "backward": collected(layer_norm_backward, "dx", "dweight", "dbias"),
    },
    "gelu": {
        "forward": collected(gelu_forward, "y"),
        "backward": collected(gelu_backward, "dx"),
    },
    "adamw": {"update": Way(adamw_update)},
}


def rungs(operation: str) -> list[Rung]:
    idea = "What tinygpt_np/ops makes of it, and BLAS of the products."
    return [Rung("NumPy", idea, WAYS[operation], threads="any", reference=True)]


def about() -> dict[str, Any]:
    return {"numpy": np.__version__}
