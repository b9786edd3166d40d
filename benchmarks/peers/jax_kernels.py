# JAX is in no environment that the type checker runs in.
# pyright: basic, reportMissingImports=false
"""JAX's side of the kernels: plain jax.numpy, compiled by jax.jit, backwards by jax.vjp.

Inputs are JAX's own arrays, made before the clock runs; it stops when the result is ready. Where a
forward saves what its backward needs, that is a function compiled apart, and not timed. Nothing is
written in place but by AdamW, whose arrays are donated. JAX can be told no number of threads: it
takes one for each CPU that the process may use, so the process is held to that many.
"""

import functools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

try:
    import jax
except ModuleNotFoundError:
    raise ImportError("JAX is not installed: pip install jax") from None
import jax.numpy as jnp

from benchmarks.ladders import Call, Rung, Way
from benchmarks.tasks import adamw as recipe
from tinygpt_np import optim
from tinygpt_np.ops import cross_entropy, layer_norm

Step = Callable[[], Any]


def set_up(threads: int) -> None:
    """On the CPU; before anything is computed, for that is when JAX starts its threads."""
    jax.config.update("jax_platforms", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    else:
        os.environ["NPROC"] = str(threads)


def take(call: Call, *names: str) -> list[jax.Array]:
    return [jnp.array(call.inputs[name]) for name in names]


def ready(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.block_until_ready(function(*arguments))


def way(function: Callable[..., Any], inputs: str, outputs: str) -> Way:
    """A function of inputs that returns outputs; both are names with spaces between."""
    compiled = jax.jit(function)

    def prepare(call: Call) -> Step:
        return partial(ready, compiled, *take(call, *inputs.split()))

    return Way(prepare, collect=writes(outputs))


def writes(names: str) -> Callable[[Call, Any], None]:
    def collect(call: Call, returned: Any) -> None:
        found = returned if isinstance(returned, tuple) else (returned,)
        for name, array in zip(names.split(), found, strict=True):
            call.arrays[name][...] = np.asarray(array)

    return collect


def saver(function: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a function, compiled; it returns what the backward needs, for `pull_back`."""
    return jax.jit(lambda *arguments: jax.vjp(function, *arguments)[1])


@jax.jit
def pull_back(saved: Callable[..., Any], upstream: jax.Array) -> tuple[jax.Array, ...]:
    return saved(upstream)


def softmax_backward(dprobs: jax.Array, probs: jax.Array) -> jax.Array:
    """By hand, for JAX's own starts from x."""
    return probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True))


def attention(qkv: jax.Array) -> jax.Array:
    """qkv (B, T, 3, H, D) -> y (B, T, H, D). As fast as jax.nn.dot_product_attention, or faster."""
    q, k, v = (qkv[:, :, part] for part in range(3))
    time, size = q.shape[1], q.shape[3]
    scores = jnp.einsum("bthd,bshd->bhts", q, k) * size**-0.5
    masked = jnp.where(jnp.tri(time, dtype=bool), scores, -jnp.inf)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(masked), v)


save_attention = saver(attention)


def attention_backward(call: Call) -> Step:
    qkv, dy = take(call, "qkv", "dy")
    return partial(ready, pull_back, ready(save_attention, qkv), dy)


def normalize(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    mean = x.mean(axis=-1, keepdims=True)
    var = jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + layer_norm.EPSILON) * weight + bias


save_layer_norm = saver(normalize)


def layer_norm_backward(call: Call) -> Step:
    dy, x, weight = take(call, "dy", "x", "weight")
    saved = ready(save_layer_norm, x, weight, jnp.zeros_like(weight))
    return partial(ready, pull_back, saved, dy)


gelu = functools.partial(jax.nn.gelu, approximate=True)


def gelu_backward(dy: jax.Array, x: jax.Array) -> jax.Array:
    """From x: to save more than that makes it slower."""
    (dx,) = jax.vjp(gelu, x)[1](dy)
    return dx


def mean_loss(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean over the rows that count, and the loss of each."""
    counted = targets != cross_entropy.IGNORE_INDEX
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, jnp.where(counted, targets, 0)[:, None], axis=1)
    losses = jnp.where(counted, -picked[:, 0], 0)
    return losses.sum() / jnp.maximum(counted.sum(), 1), losses


loss_and_gradient = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))


def cross_entropy_both(call: Call) -> Step:
    targets = jnp.array(call.inputs["targets"].astype(np.int32))
    return partial(ready, loss_and_gradient, *take(call, "logits"), targets)


def collect_cross_entropy(call: Call, returned: Any) -> None:
    (_, losses), dlogits = returned
    writes("losses logits")(call, (losses, dlogits))


@partial(jax.jit, donate_argnums=(0, 1, 2))
def update(param: jax.Array, first: jax.Array, second: jax.Array, grad: jax.Array) -> Any:
    g = grad * recipe.SCALE
    first += (1 - recipe.BETA1) * (g - first)
    second += (1 - recipe.BETA2) * (g * g - second)
    denominator = jnp.sqrt(second / recipe.CORRECTION2) + optim.EPSILON
    param *= 1 - recipe.LEARNING_RATE * recipe.WEIGHT_DECAY
    param -= recipe.LEARNING_RATE / recipe.CORRECTION1 * first / denominator
    return param, first, second


def adamw_update(call: Call) -> Step:
    """Each step goes on from where the one before has come to, for the old arrays are given up."""
    state, grads = take(call, "param", "first", "second"), take(call, "grad")

    def step() -> Any:
        nonlocal state
        state = ready(update, *state, *grads)
        return state

    return step


WAYS = {
    "matmul": {
        "forward": way(lambda x, weight: x @ weight, "x weight", "y"),
        "dx": way(lambda dy, weight: dy @ weight.T, "dy weight", "dx"),
        "dweight": way(lambda x, dy: x.T @ dy, "x dy", "dweight"),
    },
    "softmax": {
        "forward": way(jax.nn.softmax, "x", "probs"),
        "backward": way(softmax_backward, "dprobs probs", "dx"),
    },
    "attention": {
        "forward": way(attention, "qkv", "y"),
        "backward": Way(attention_backward, collect=writes("dqkv")),
    },
    "cross_entropy": {
        "loss and gradient": Way(cross_entropy_both, collect=collect_cross_entropy),
    },
    "layer_norm": {
        "forward": way(normalize, "x weight bias", "y"),
        "backward": Way(layer_norm_backward, collect=writes("dx dweight dbias")),
    },
    "gelu": {
        "forward": way(gelu, "x", "y"),
        "backward": way(gelu_backward, "dy x", "dx"),
    },
    "adamw": {"update": Way(adamw_update, collect=writes("param first second"), goes_on=True)},
}  # fmt: skip


def rungs(operation: str) -> list[Rung]:
    idea = "Plain jax.numpy, fused and compiled by XLA."
    return [Rung("JAX", idea, WAYS[operation], threads="any", reference=True)]


def about() -> dict[str, Any]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.environ["NPROC"]
    return {"jax": jax.__version__, "threads": int(cpus)}
