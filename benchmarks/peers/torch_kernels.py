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
from benchmarks.cases import rms_norm
from benchmarks.ladders import Call, Rung, Runner, collected, contiguous
from tinygpt_np.config import (
    ADAM_EPSILON,
    MUON_EPSILON,
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_STEPS,
)
from tinygpt_np.ops import cross_entropy, layer_norm

Step = Callable[[], Any]
aten = torch.ops.aten


def tensors(arrays: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """Return tensors that share the memory of arrays."""
    return [torch.from_numpy(array) for array in arrays.values()]


def operator(function: Any, *fixed: Any, **named: Any) -> Runner:
    """Return the runner of an operator on the inputs."""
    return collected(lambda call: partial(function, *tensors(call.inputs), *fixed, **named))


def product(transposed: int | None = None) -> Runner:
    """Return the runner of a matmul that writes to its output; one operand may be transposed."""

    def prepare(call: Call) -> Step:
        *operands, out = tensors(call.arrays)
        if transposed is not None:
            operands[transposed] = operands[transposed].T
        return partial(torch.mm, *operands, out=out)

    return Runner(prepare)


def layer_norm_forward(call: Call) -> Step:
    """Return a step that computes layer norm."""
    x, weight, bias = tensors(call.inputs)
    return partial(F.layer_norm, x, weight.shape, weight, bias, layer_norm.EPSILON)


def heads(qkv: torch.Tensor) -> list[torch.Tensor]:
    """Return q, k and v (B, H, T, D) as views of qkv."""
    return [part.transpose(1, 2) for part in qkv.unbind(2)]


def attention_forward(call: Call) -> Step:
    """Return a step that computes causal attention."""
    return partial(F.scaled_dot_product_attention, *heads(*tensors(call.inputs)), is_causal=True)


def collect_attention(call: Call, heads: torch.Tensor) -> None:
    """Write y (B, T, H, D); its memory is that of heads (B, H, T, D), so a model copies nothing."""
    call.outputs["y"][...] = heads.transpose(1, 2).numpy()


def attention_backward(call: Call) -> Step:
    """Return a step that computes three gradients and stacks them to dqkv, given the forward."""
    dy, qkv = tensors(call.inputs)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    gradients: list[Step] = []

    def save() -> None:
        inputs = heads(qkv)
        saved = aten._scaled_dot_product_flash_attention_for_cpu(*inputs, 0.0, True)
        gradients[:] = [partial(backward, dy.transpose(1, 2), *inputs, *saved, 0.0, True)]

    def step() -> torch.Tensor:
        return torch.stack([part.transpose(1, 2) for part in gradients[0]()], dim=2)

    call.saves.append(save)
    return step


def cross_entropy_both(call: Call) -> Step:
    """Return a step with the four operators of F.cross_entropy and its gradient."""
    logits, targets = tensors(call.inputs)
    dlosses = torch.empty(len(targets))
    forward, backward = aten.nll_loss_forward.default, aten.nll_loss_backward.default
    none, ignored = 0, cross_entropy.IGNORE_INDEX  # no reduction: a loss per row

    def save() -> None:
        counted = targets != ignored
        dlosses.copy_(counted.float() / counted.sum().clamp(min=1))

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        log_probs = torch.log_softmax(logits, 1)
        losses, total = forward(log_probs, targets, None, none, ignored)
        dlog_probs = backward(dlosses, log_probs, targets, None, none, ignored, total)
        return losses, torch._log_softmax_backward_data(dlog_probs, log_probs, 1, torch.float32)

    call.saves.append(save)
    return step


def layer_norm_backward(call: Call) -> Step:
    """Return a step that computes three gradients."""
    dy, x, weight, mean, rstd = tensors(call.inputs)
    moments, bias = (mean[:, None], rstd[:, None]), torch.zeros_like(weight)
    backward = aten.native_layer_norm_backward.default
    return partial(backward, dy, x, weight.shape, *moments, weight, bias, [True, True, True])


def rms_norm_forward(call: Call) -> Step:
    """Return a step that computes RMS norm."""
    x, weight = tensors(call.inputs)
    return partial(F.rms_norm, x, weight.shape, weight, rms_norm.EPSILON)


def rms_norm_backward(call: Call) -> Step:
    """Return a step that computes two gradients by few operators; PyTorch has none for them."""
    dy, x, weight, rstd = tensors(call.inputs)
    rstd = rstd[:, None]
    xhat = torch.empty_like(x)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        dxhat = dy * weight
        along_xhat = (dxhat * xhat).mean(1, keepdim=True)
        return (dxhat - xhat * along_xhat) * rstd, (dy * xhat).sum(0)

    call.saves.append(lambda: torch.mul(x, rstd, out=xhat))
    return step


def rotate_halves(call: Call) -> Step:
    """Return a step that multiplies by a cos and adds the other half times a sin, as in Llama."""
    x, cos, sin = tensors(call.inputs)  # (B, T, H, 2, R), (T, R)
    cos, sin = cos[:, None, None], sin[:, None, None]

    def step() -> torch.Tensor:
        first, second = x.unbind(3)
        return x * cos + torch.stack([-second, first], dim=3) * sin

    return step


def rotate_interleaved(call: Call) -> Step:
    """Return a step that multiplies pairs as complex numbers."""
    x, cos, sin = tensors(call.inputs)  # (B, T, H, R, 2), (T, R)
    turns = torch.empty(len(cos), 1, cos.shape[1], dtype=torch.complex64)
    call.saves.append(lambda: turns.copy_(torch.complex(cos, sin)[:, None]))
    return lambda: torch.view_as_real(torch.view_as_complex(x) * turns)


def swiglu_forward(call: Call) -> Step:
    """Return a step that multiplies one half, through SiLU, by the other."""
    (x,) = tensors(call.inputs)
    gate, up = x.unbind(1)
    return lambda: F.silu(gate) * up


def swiglu_backward(call: Call) -> Step:
    """Return a step that computes both gradients and stacks them, given SiLU's result."""
    dy, x = tensors(call.inputs)
    gate, up = x.unbind(1)
    activated = torch.empty_like(dy)

    def step() -> torch.Tensor:
        return torch.stack([aten.silu_backward.default(dy * up, gate), dy * activated], dim=1)

    call.saves.append(lambda: activated.copy_(F.silu(gate)))
    return step


def relu_squared_backward(call: Call) -> Step:
    """Return a step that computes the gradients of the square and of ReLU, given ReLU's result."""
    dy, x = tensors(call.inputs)
    rectified = torch.empty_like(x)
    call.saves.append(lambda: rectified.copy_(F.relu(x)))
    return lambda: aten.threshold_backward.default(dy * (2 * rectified), rectified, 0)


def adamw_update(call: Call) -> Step:
    """Return the update that AdamW(fused=True) calls, in place, after scaling as clipping does."""
    param, grad, first, second = tensors(call.inputs)
    scaled = torch.empty_like(grad)  # grad may not be changed.
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


def muon_orthogonalize(call: Call) -> Step:
    """Return the steps of torch.optim.Muon, which are in bfloat16 there, in float32."""
    (x,) = tensors(call.inputs)
    a, b, c = NEWTON_SCHULZ

    def step() -> torch.Tensor:
        tall = x.shape[1] > x.shape[2]
        y = x.mT if tall else x
        y = y / (torch.linalg.matrix_norm(y, keepdim=True) + MUON_EPSILON)
        for _ in range(NEWTON_SCHULZ_STEPS):
            gram = y @ y.mT
            y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
        return y.mT if tall else y

    return step


RUNNERS = {
    "matmul": {"forward": product(), "dx": product(transposed=1), "dweight": product(transposed=0)},
    "softmax": {
        "forward": operator(F.softmax, dim=-1),
        "backward": operator(torch._softmax_backward_data, -1, torch.float32),
    },
    "attention": {
        "forward": Runner(attention_forward, collect=collect_attention),
        "backward": collected(attention_backward),
    },
    "cross_entropy": {"loss and gradient": collected(cross_entropy_both, "losses", "logits")},
    "layer_norm": {
        "forward": collected(layer_norm_forward),
        **contiguous({"backward": collected(layer_norm_backward)}),
    },
    "gelu": {
        "forward": operator(F.gelu, approximate="tanh"),
        "backward": operator(aten.gelu_backward.default, approximate="tanh"),
    },
    "adamw": contiguous({"update": Runner(adamw_update)}),
    "rms_norm": {
        "forward": collected(rms_norm_forward),
        "backward": collected(rms_norm_backward),
    },
    "rotary": {
        "halves": collected(rotate_halves, "x"),
        **contiguous({"interleaved": collected(rotate_interleaved, "pairs")}),
    },
    "swiglu": {"forward": collected(swiglu_forward), "backward": collected(swiglu_backward)},
    "relu_squared": {
        "forward": operator(lambda x: F.relu(x).square()),
        "backward": collected(relu_squared_backward),
    },
    "muon": {"orthogonalize": collected(muon_orthogonalize)},
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
