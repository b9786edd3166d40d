# PyTorch is in no environment that the type checker runs in.
# pyright: basic, reportMissingImports=false
"""PyTorch's kernels: the operators that its functions and its autograd call.

They are called without modules, graph and optimizer, whose overhead grows as arrays shrink and is
no part of a kernel. Inputs share NumPy's memory. Matmuls get an output to write to; the others
make new tensors, as in a model, which is no slower for these operators. Copying results to the
outputs is not timed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError:
    raise ImportError("PyTorch is not installed: pip install '.[bench]'") from None
from torch.nn import functional as F  # noqa: N812

from benchmarks.cases import adamw as recipe
from benchmarks.ladders import Call, Rung, Runner, collected
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.ops import cross_entropy, layer_norm

Step = Callable[[], Any]
aten = torch.ops.aten


def tensors(arrays: dict[str, np.ndarray], *names: str) -> list[torch.Tensor]:
    """Return tensors that share the memory of arrays."""
    return [torch.from_numpy(arrays[name]) for name in names]


def operator(outputs: str, inputs: str, function: Any, *fixed: Any, **named: Any) -> Runner:
    """Return the runner of an operator on some inputs, whose results are copied to the outputs."""

    def prepare(call: Call) -> Step:
        return partial(function, *tensors(call.inputs, *inputs.split()), *fixed, **named)

    return collected(prepare, *outputs.split())


def product(a: str, b: str, result: str, transposed: str = "") -> Runner:
    """Return the runner of a matmul that writes to its output; one operand may be transposed."""

    def prepare(call: Call) -> Step:
        left, right, out = tensors(call.arrays, a, b, result)
        left, right = left.T if transposed == a else left, right.T if transposed == b else right
        return partial(torch.mm, left, right, out=out)

    return Runner(prepare)


def layer_norm_forward(call: Call) -> Step:
    """Return a step that computes layer norm."""
    x, weight, bias = tensors(call.inputs, "x", "weight", "bias")
    return partial(F.layer_norm, x, weight.shape, weight, bias, layer_norm.EPSILON)


def heads(qkv: torch.Tensor) -> list[torch.Tensor]:
    """Return q, k and v (B, H, T, D) as views of qkv."""
    return [part.transpose(1, 2) for part in qkv.unbind(2)]


def attention_forward(call: Call) -> Step:
    """Return a step that computes causal attention."""
    q, k, v = heads(*tensors(call.inputs, "qkv"))
    return partial(F.scaled_dot_product_attention, q, k, v, is_causal=True)


def collect_attention(call: Call, heads: torch.Tensor) -> None:
    """Write y (B, T, H, D); its memory is that of heads (B, H, T, D), so a model copies nothing."""
    call.outputs["y"][...] = heads.transpose(1, 2).numpy()


def attention_backward(call: Call) -> Step:
    """Return a step that computes three gradients and stacks them to dqkv, given the forward."""
    qkv, dy = tensors(call.inputs, "qkv", "dy")
    q, k, v = heads(qkv)
    attend = aten._scaled_dot_product_flash_attention_for_cpu.default
    y, log_sums = attend(q, k, v, 0.0, True)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    gradients = partial(backward, dy.transpose(1, 2), q, k, v, y, log_sums, 0.0, True)

    def step() -> torch.Tensor:
        return torch.stack([part.transpose(1, 2) for part in gradients()], dim=2)

    return step


def cross_entropy_both(call: Call) -> Step:
    """Return a step with the four operators of F.cross_entropy and its gradient."""
    logits, targets = tensors(call.inputs, "logits", "targets")
    counted = targets != cross_entropy.IGNORE_INDEX
    dlosses = counted.float() / counted.sum().clamp(min=1)
    forward, backward = aten.nll_loss_forward.default, aten.nll_loss_backward.default
    none, ignored = 0, cross_entropy.IGNORE_INDEX  # no reduction: a loss per row

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        log_probs = torch.log_softmax(logits, 1)
        losses, total = forward(log_probs, targets, None, none, ignored)
        dlog_probs = backward(dlosses, log_probs, targets, None, none, ignored, total)
        return losses, torch._log_softmax_backward_data(dlog_probs, log_probs, 1, torch.float32)

    return step


def layer_norm_backward(call: Call) -> Step:
    """Return a step that is given the mean and 1/s of each row, as saved by the forward."""
    dy, x, weight = tensors(call.inputs, "dy", "x", "weight")
    bias = torch.zeros_like(weight)
    _, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, layer_norm.EPSILON)
    backward = aten.native_layer_norm_backward.default
    return partial(backward, dy, x, weight.shape, mean, scale, weight, bias, [True, True, True])


def adamw_update(call: Call) -> Step:
    """Return the update that AdamW(fused=True) calls, in place, after scaling as clipping does.

    The scaled gradient gets its own array, because grad may not be changed.
    """
    param, grad, first, second = tensors(call.inputs, "param", "grad", "first", "second")
    scaled = torch.empty_like(grad)
    update = partial(
        torch._fused_adamw_,
        [param], [scaled], [first], [second], [], [torch.tensor(float(recipe.STEP))],
        lr=recipe.LEARNING_RATE, beta1=recipe.BETA1, beta2=recipe.BETA2,
        weight_decay=recipe.WEIGHT_DECAY, eps=ADAM_EPSILON, amsgrad=False, maximize=False,
    )  # fmt: skip

    def step() -> None:
        torch.mul(grad, recipe.SCALE, out=scaled)
        update()

    return step


RUNNERS = {
    "matmul": {
        "forward": product("x", "weight", "y"),
        "dx": product("dy", "weight", "dx", transposed="weight"),
        "dweight": product("x", "dy", "dweight", transposed="x"),
    },
    "softmax": {
        "forward": operator("probs", "x", F.softmax, dim=-1),
        "backward": operator("dx", "dprobs probs", torch._softmax_backward_data, -1, torch.float32),
    },
    "attention": {
        "forward": Runner(attention_forward, collect=collect_attention),
        "backward": collected(attention_backward, "dqkv"),
    },
    "cross_entropy": {"loss and gradient": collected(cross_entropy_both, "losses", "logits")},
    "layer_norm": {
        "forward": collected(layer_norm_forward, "y"),
        "backward": collected(layer_norm_backward, "dx", "dweight", "dbias"),
    },
    "gelu": {
        "forward": operator("y", "x", F.gelu, approximate="tanh"),
        "backward": operator("dx", "dy x", aten.gelu_backward.default, approximate="tanh"),
    },
    "adamw": {"update": Runner(adamw_update)},
}


def set_up(threads: int) -> None:
    """Set the number of threads."""
    torch.set_num_threads(threads)


def rungs(operation: str) -> list[Rung]:
    """Return PyTorch's kernel of an operation."""
    idea = "The operators that its functions and its autograd call."
    return [Rung("PyTorch", idea, RUNNERS[operation], threads="any", reference=True)]


def about() -> dict[str, Any]:
    """Return the version and the threads."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}
