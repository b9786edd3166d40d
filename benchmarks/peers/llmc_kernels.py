"""llm.c's side of the kernels: those of train_gpt2.c, compiled from a checkout that the user names.

They are compiled as its Makefile does, with -Ofast, OpenMP and -march=native, and called as they
are, so some things are told here:

- Its weights are (K, C). A copy turned round is made before the clock runs.
- Its backwards add to their gradients. These are set to zero within the time, as its training does
  with all of them before each backward.
- One call makes dx and dweight of a product, which no other here does, so neither is offered. Nor
  are the softmax's own backward and AdamW, which it has for whole models only.
- Its loss knows no rows that do not count: these are given target 0 and a gradient of zero, and
  their loss is set to zero when the clock has stopped.
- Its loss is -log of a probability, infinite where that underflows, past 87. The task has two such
  rows, so the gate turns llm.c's cross-entropy away; it is left to say so.
"""

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way
from tinygpt_np.ops import cross_entropy

SOURCE = "train_gpt2.c"
# Old-style inline: a function of its headers that is not inlined would be missing from a library.
FLAGS = (
    "-Ofast", "-fopenmp", "-march=native", "-fPIC", "-shared", "-DTESTING", "-fgnu89-inline", "-w",
)  # fmt: skip
FUNCTIONS = (
    "matmul_forward",
    "softmax_forward",
    "crossentropy_forward",
    "crossentropy_softmax_backward",
    "attention_forward",
    "attention_backward",
    "layernorm_forward",
    "layernorm_backward",
    "gelu_forward",
    "gelu_backward",
)
Step = Callable[[], Any]
# Of the one checkout, once it is set up: its functions, and what to tell of it.
functions: dict[str, Any] = {}
facts: dict[str, Any] = {}


def set_up(threads: int, folder: str) -> None:
    """Raises OSError, in one line, if it cannot be compiled."""
    source = Path(folder, SOURCE)
    if not source.is_file():
        raise OSError(f"llm.c: {source} is not there")
    compiler = run(folder, "cc", "--version").splitlines()[0]
    with tempfile.TemporaryDirectory() as scratch:
        target = str(Path(scratch, "llmc.so"))
        run(folder, "cc", *FLAGS, SOURCE, "-o", target, "-lm")
        # OpenMP reads it when it is loaded, with the functions.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        library = ctypes.CDLL(target)
    for name in FUNCTIONS:
        if not hasattr(library, name):
            raise OSError(f"llm.c: {source} has no {name}")
        functions[name] = getattr(library, name)
        functions[name].restype = None
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    facts.update(
        source=f"{SOURCE} {digest}", compiler=compiler, flags=" ".join(FLAGS), threads=threads
    )


def run(folder: str, *command: str) -> str:
    """What it writes. Raises OSError with its first line that says error."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OSError(f"llm.c: there is no C compiler, {command[0]}") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"{command[0]} has failed"]
        raise OSError(f"llm.c: {next((line for line in lines if 'error' in line), lines[0])}")
    return done.stdout


def bound(name: str, *arguments: np.ndarray | int | None) -> Step:
    """The call of a function, ready to be made. None is a null pointer."""
    return partial(functions[name], *map(passed, arguments))


def passed(argument: np.ndarray | int | None) -> Any:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return argument.ctypes.data_as(ctypes.c_void_p)  # It keeps the array alive.
    return None if argument is None else ctypes.c_int(argument)


def from_zero(arrays: Sequence[np.ndarray], call: Step) -> Step:
    """A call that adds to some arrays."""

    def step() -> None:
        for array in arrays:
            array.fill(0)
        call()

    return step


def matmul_forward(call: Call) -> Step:
    N, C, K = (call.sizes[letter] for letter in "NCK")
    weight = np.ascontiguousarray(call.inputs["weight"].T)
    return bound("matmul_forward", call.outputs["y"], call.inputs["x"], weight, None, 1, N, C, K)


def softmax_forward(call: Call) -> Step:
    N, V = call.sizes["N"], call.sizes["V"]
    return bound("softmax_forward", call.outputs["probs"], call.inputs["x"], 1, N, V, V)


def attention_sizes(call: Call) -> tuple[int, int, int, int]:
    """B, T, C and H."""
    B, T, H, D = (call.sizes[letter] for letter in "BTHD")
    return B, T, H * D, H


def square(call: Call) -> np.ndarray:
    """Room for a number of each score of all heads (B, H, T, T); nothing there can look right."""
    B, T, _, H = attention_sizes(call)
    return np.full((B, H, T, T), np.nan, np.float32)


def attention_forward(call: Call) -> Step:
    y, qkv = call.outputs["y"], call.inputs["qkv"]
    return bound("attention_forward", y, square(call), square(call), qkv, *attention_sizes(call))


def attention_backward(call: Call) -> Step:
    """From the probabilities that its forward saved."""
    qkv, dy, dqkv = call.inputs["qkv"], call.inputs["dy"], call.outputs["dqkv"]
    sizes = attention_sizes(call)
    probs, dscores, dprobs = square(call), square(call), square(call)
    bound("attention_forward", np.empty_like(dy), square(call), probs, qkv, *sizes)()
    backward = bound("attention_backward", dqkv, dscores, dprobs, dy, qkv, probs, *sizes)
    return from_zero((dqkv, dscores, dprobs), backward)


def cross_entropy_both(call: Call) -> Step:
    """The probabilities, the losses, and the gradient, in a place of its own."""
    logits, targets = call.inputs["logits"], call.inputs["targets"]
    N, V = logits.shape
    counted = targets != cross_entropy.IGNORE_INDEX
    found = np.where(counted, targets, 0).astype(np.int32)
    dlosses = (counted / max(int(counted.sum()), 1)).astype(np.float32)
    probs, dlogits = np.empty_like(logits), np.full_like(logits, np.nan)
    losses = call.outputs["losses"]
    softmax = bound("softmax_forward", probs, logits, 1, N, V, V)
    loss = bound("crossentropy_forward", losses, probs, found, 1, N, V)
    gradient = bound("crossentropy_softmax_backward", dlogits, dlosses, probs, found, 1, N, V, V)

    def step() -> np.ndarray:
        softmax()
        loss()
        dlogits.fill(0)
        gradient()
        return dlogits

    return step


def collect_cross_entropy(call: Call, dlogits: np.ndarray) -> None:
    call.outputs["losses"][call.inputs["targets"] == cross_entropy.IGNORE_INDEX] = 0
    call.inputs["logits"][...] = dlogits


def layer_norm_forward(call: Call) -> Step:
    x, weight, bias = (call.inputs[name] for name in ("x", "weight", "bias"))
    mean, scale = np.empty((2, len(x)), np.float32)
    y = call.outputs["y"]
    return bound("layernorm_forward", y, mean, scale, x, weight, bias, 1, *x.shape)


def layer_norm_backward(call: Call) -> Step:
    """From the mean and 1/s of each row, which its forward saved."""
    dy, x, weight = (call.inputs[name] for name in ("dy", "x", "weight"))
    mean, scale = np.empty((2, len(x)), np.float32)
    bias = np.zeros_like(weight)
    forward = ("layernorm_forward", np.empty_like(x), mean, scale, x, weight, bias)
    bound(*forward, 1, *x.shape)()
    gradients = [call.outputs[name] for name in ("dx", "dweight", "dbias")]
    backward = ("layernorm_backward", *gradients, dy, x, weight, mean, scale)
    return from_zero(gradients, bound(*backward, 1, *x.shape))


def gelu_forward(call: Call) -> Step:
    x = call.inputs["x"]
    return bound("gelu_forward", call.outputs["y"], x, x.size)


def gelu_backward(call: Call) -> Step:
    dy, x, dx = call.inputs["dy"], call.inputs["x"], call.outputs["dx"]
    return from_zero((dx,), bound("gelu_backward", dx, x, dy, x.size))


WAYS = {
    "matmul": {"forward": Way(matmul_forward)},
    "softmax": {"forward": Way(softmax_forward)},
    "attention": {"forward": Way(attention_forward), "backward": Way(attention_backward)},
    "cross_entropy": {
        "loss and gradient": Way(cross_entropy_both, collect=collect_cross_entropy),
    },
    "layer_norm": {"forward": Way(layer_norm_forward), "backward": Way(layer_norm_backward)},
    "gelu": {"forward": Way(gelu_forward), "backward": Way(gelu_backward)},
}


def rungs(operation: str) -> list[Rung]:
    if operation not in WAYS:
        return []
    idea = "Plain loops in C that the compiler vectorizes, some of them shared out by OpenMP."
    return [Rung("llm.c", idea, WAYS[operation], threads="any", reference=True)]


def about() -> dict[str, Any]:
    return facts
