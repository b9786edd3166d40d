"""llm.c's kernels: those of train_gpt2.c, compiled from a checkout that the user names.

They are compiled as by its Makefile, with -Ofast, OpenMP and -march=native, and called unchanged:

- Its weights are (K, C). They are transposed before the clock starts.
- Its backwards add to their gradients, which are zeroed within the time, as in its training.
- One call computes dx and dweight of a matmul, so neither is offered alone. Nor are the backward
  of softmax and AdamW, which it has for whole models only.
- Its loss has no ignored rows: they get target 0 and a gradient of zero, and their loss is set to
  zero after the clock has stopped.
- Its loss is -log of a probability, which is infinite if that underflows. The case has two such
  rows, so the gate refuses llm.c's cross-entropy; the table says so.
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

from benchmarks.ladders import Call, Rung, Runner
from tinygpt_np.ops import cross_entropy

SOURCE = "train_gpt2.c"
# With GNU inline semantics, a function of its headers that is not inlined is not missing.
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
# The functions of the checkout once it is set up, and its description.
functions: dict[str, Any] = {}
facts: dict[str, Any] = {}


def set_up(threads: int, folder: str) -> None:
    """Compile and load the kernels. Raises OSError with one line if that fails."""
    source = Path(folder, SOURCE)
    if not source.is_file():
        raise OSError(f"llm.c: {source} does not exist")
    compiler = run(folder, "cc", "--version").splitlines()[0]
    with tempfile.TemporaryDirectory() as scratch:
        target = str(Path(scratch, "llmc.so"))
        run(folder, "cc", *FLAGS, SOURCE, "-o", target, "-lm")
        # OpenMP reads it when it is loaded with the functions.
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
    """Return what a command prints. Raises OSError with its first line that contains error."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OSError(f"llm.c: there is no C compiler, {command[0]}") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"{command[0]} has failed"]
        raise OSError(f"llm.c: {next((line for line in lines if 'error' in line), lines[0])}")
    return done.stdout


def bound(name: str, *arguments: np.ndarray | int | None) -> Step:
    """Return the call of a function with its arguments; None is a null pointer."""
    return partial(functions[name], *map(passed, arguments))


def passed(argument: np.ndarray | int | None) -> Any:
    """Return an argument as ctypes passes it."""
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return argument.ctypes.data_as(ctypes.c_void_p)  # It keeps the array alive.
    return None if argument is None else ctypes.c_int(argument)


def from_zero(arrays: Sequence[np.ndarray], call: Step) -> Step:
    """Return a step that zeroes the arrays that a call adds to, and calls it."""

    def step() -> None:
        for array in arrays:
            array.fill(0)
        call()

    return step


def matmul_forward(call: Call) -> Step:
    """Return a step that computes y = x W."""
    N, C, K = (call.sizes[letter] for letter in "NCK")
    weight = np.ascontiguousarray(call.inputs["weight"].T)
    return bound("matmul_forward", call.outputs["y"], call.inputs["x"], weight, None, 1, N, C, K)


def softmax_forward(call: Call) -> Step:
    """Return a step that computes the softmax."""
    N, V = call.sizes["N"], call.sizes["V"]
    return bound("softmax_forward", call.outputs["probs"], call.inputs["x"], 1, N, V, V)


def attention_sizes(call: Call) -> tuple[int, int, int, int]:
    """Return B, T, C and H."""
    B, T, H, D = (call.sizes[letter] for letter in "BTHD")
    return B, T, H * D, H


def square(call: Call) -> np.ndarray:
    """Return an array for the scores of all heads (B, H, T, T), filled with NaN."""
    B, T, _, H = attention_sizes(call)
    return np.full((B, H, T, T), np.nan, np.float32)


def attention_forward(call: Call) -> Step:
    """Return a step that computes causal attention."""
    y, qkv = call.outputs["y"], call.inputs["qkv"]
    return bound("attention_forward", y, square(call), square(call), qkv, *attention_sizes(call))


def attention_backward(call: Call) -> Step:
    """Return a step that is given the probabilities, as saved by the forward."""
    qkv, dy, dqkv = call.inputs["qkv"], call.inputs["dy"], call.outputs["dqkv"]
    sizes = attention_sizes(call)
    probs, dscores, dprobs = square(call), square(call), square(call)
    bound("attention_forward", np.empty_like(dy), square(call), probs, qkv, *sizes)()
    backward = bound("attention_backward", dqkv, dscores, dprobs, dy, qkv, probs, *sizes)
    return from_zero((dqkv, dscores, dprobs), backward)


def cross_entropy_both(call: Call) -> Step:
    """Return a step that computes probabilities, losses, and the gradient in its own array."""
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
    """Zero the losses of ignored rows, and write the gradient over the logits."""
    call.outputs["losses"][call.inputs["targets"] == cross_entropy.IGNORE_INDEX] = 0
    call.inputs["logits"][...] = dlogits


def layer_norm_forward(call: Call) -> Step:
    """Return a step that computes layer norm."""
    x, weight, bias = (call.inputs[name] for name in ("x", "weight", "bias"))
    mean, scale = np.empty((2, len(x)), np.float32)
    y = call.outputs["y"]
    return bound("layernorm_forward", y, mean, scale, x, weight, bias, 1, *x.shape)


def layer_norm_backward(call: Call) -> Step:
    """Return a step that is given the mean and 1/s of each row, as saved by the forward."""
    dy, x, weight = (call.inputs[name] for name in ("dy", "x", "weight"))
    mean, scale = np.empty((2, len(x)), np.float32)
    bias = np.zeros_like(weight)
    forward = ("layernorm_forward", np.empty_like(x), mean, scale, x, weight, bias)
    bound(*forward, 1, *x.shape)()
    gradients = [call.outputs[name] for name in ("dx", "dweight", "dbias")]
    backward = ("layernorm_backward", *gradients, dy, x, weight, mean, scale)
    return from_zero(gradients, bound(*backward, 1, *x.shape))


def gelu_forward(call: Call) -> Step:
    """Return a step that computes GELU."""
    x = call.inputs["x"]
    return bound("gelu_forward", call.outputs["y"], x, x.size)


def gelu_backward(call: Call) -> Step:
    """Return a step that computes dx, given x."""
    dy, x, dx = call.inputs["dy"], call.inputs["x"], call.outputs["dx"]
    return from_zero((dx,), bound("gelu_backward", dx, x, dy, x.size))


RUNNERS = {
    "matmul": {"forward": Runner(matmul_forward)},
    "softmax": {"forward": Runner(softmax_forward)},
    "attention": {"forward": Runner(attention_forward), "backward": Runner(attention_backward)},
    "cross_entropy": {
        "loss and gradient": Runner(cross_entropy_both, collect=collect_cross_entropy),
    },
    "layer_norm": {"forward": Runner(layer_norm_forward), "backward": Runner(layer_norm_backward)},
    "gelu": {"forward": Runner(gelu_forward), "backward": Runner(gelu_backward)},
}


def rungs(operation: str) -> list[Rung]:
    """Return llm.c's kernel of an operation, if it has one."""
    if operation not in RUNNERS:
        return []
    idea = "Loops in C, vectorised by the compiler, some of them parallelised by OpenMP."
    return [Rung("llm.c", idea, RUNNERS[operation], threads="any", reference=True)]


def about() -> dict[str, Any]:
    """Return source, compiler, flags and threads."""
    return facts
