# PyTorch is in no environment that the type checker runs in.
# pyright: basic, reportMissingImports=false
"""PyTorch's side of the kernels: the operators that its functions and its autograd call.

They are called without the modules, the graph and the optimizer around them, which cost the more
the smaller the arrays are, and are no part of a kernel. Inputs are NumPy's memory. Products are
told where to write; the others make new tensors, as in a model, which for these operators is no
slower than the form that is told where. That results are copied to where the gate looks is not
timed.
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

from benchmarks.ladders import Call, Rung, Way
from benchmarks.tasks import adamw as recipe
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.ops import cross_entropy, layer_norm

Step = Callable[[], Any]
aten = torch.ops.aten


def tensors(arrays: dict[str, np.ndarray], *names: str) -> list[torch.Tensor]:
    """The same memory."""
    return [torch.from_numpy(arrays[name]) for name in names]


def collected(prepare: Callable[[Call], Step], *names: str) -> Way:
    """What the step returns, a tensor or several, is copied to the arrays of these names."""

    def collect(call: Call, returned: Any) -> None:
        found = returned if len(names) > 1 else (returned,)
        for name, tensor in zip(names, found, strict=True):
            call.arrays[name][...] = tensor.numpy()

    return Way(prepare, collect=collect)


def matmul_forward(call: Call) -> Step:
    x, weight, y = tensors(call.arrays, "x", "weight", "y")
    return partial(torch.mm, x, weight, out=y)


def matmul_dx(call: Call) -> Step:
    dy, weight, dx = tensors(call.arrays, "dy", "weight", "dx")
    return partial(torch.mm, dy, weight.T, out=dx)


def matmul_dweight(call: Call) -> Step:
    x, dy, dweight = tensors(call.arrays, "x", "dy", "dweight")
    return partial(torch.mm, x.T, dy, out=dweight)


def softmax_forward(call: Call) -> Step:
    return partial(F.softmax, *tensors(call.inputs, "x"), dim=-1)


def softmax_backward(call: Call) -> Step:
    dprobs, probs = tensors(call.inputs, "dprobs", "probs")
    return partial(torch._softmax_backward_data, dprobs, probs, -1, torch.float32)


def heads(qkv: torch.Tensor) -> list[torch.Tensor]:
    """q, k and v (B, H, T, D): views of qkv, which nobody needs to copy."""
    return [part.transpose(1, 2) for part in qkv.unbind(2)]


def attention_forward(call: Call) -> Step:
    q, k, v = heads(*tensors(call.inputs, "qkv"))
    return partial(F.scaled_dot_product_attention, q, k, v, is_causal=True)


def collect_attention(call: Call, heads: torch.Tensor) -> None:
    """heads (B, H, T, D) lie in memory as y (B, T, H, D) does: a model copies nothing here."""
    call.outputs["y"][...] = heads.transpose(1, 2).numpy()


def attention_backward(call: Call) -> Step:
    """The three gradients, and dqkv made of them. Output and log-sums are the forward's."""
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
    """The four operators of F.cross_entropy and of its gradient."""
    logits, targets = tensors(call.inputs, "logits", "targets")
    counted = targets != cross_entropy.IGNORE_INDEX
    dlosses = counted.float() / counted.sum().clamp(min=1)
    forward, backward = aten.nll_loss_forward.default, aten.nll_loss_backward.default
    none, ignored = 0, cross_entropy.IGNORE_INDEX  # no reduction: a loss for each row

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        log_probs = torch.log_softmax(logits, 1)
        losses, total = forward(log_probs, targets, None, none, ignored)
        dlog_probs = backward(dlosses, log_probs, targets, None, none, ignored, total)
        return losses, torch._log_softmax_backward_data(dlog_probs, log_probs, 1, torch.float32)

    return step


def layer_norm_forward(call: Call) -> Step:
    x, weight, bias = tensors(call.inputs, "x", "weight", "bias")
    return partial(F.layer_norm, x, weight.shape, weight, bias, layer_norm.EPSILON)


def layer_norm_backward(call: Call) -> Step:
    """From the mean and 1/s of each row, which the forward saved."""
    dy, x, weight = tensors(call.inputs, "dy", "x", "weight")
    bias = torch.zeros_like(weight)
    _, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, layer_norm.EPSILON)
    backward = aten.native_layer_norm_backward.default
    return partial(backward, dy, x, weight.shape, mean, scale, weight, bias, [True, True, True])


def gelu_forward(call: Call) -> Step:
    return partial(F.gelu, *tensors(call.inputs, "x"), approximate="tanh")


def gelu_backward(call: Call) -> Step:
    dy, x = tensors(call.inputs, "dy", "x")
    return partial(aten.gelu_backward.default, dy, x, approximate="tanh")


def adamw_update(call: Call) -> Step:
    """What AdamW(fused=True) calls, in place; before it a pass that scales, as clipping does.

    That has an array of its own, for grad may only be read.
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
        "forward": Way(attention_forward, collect=collect_attention),
        "backward": collected(attention_backward, "dqkv"),
    },
    "cross_entropy": {
        "loss and gradient": collected(cross_entropy_both, "losses", "logits"),
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


def set_up(threads: int) -> None:
    torch.set_num_threads(threads)


def rungs(operation: str) -> list[Rung]:
    idea = "The operators that its functions and its autograd call."
    return [Rung("PyTorch", idea, WAYS[operation], threads="any", reference=True)]


def about() -> dict[str, Any]:
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}
