"""llm.c's kernels: those of train_gpt2.c, compiled from a checkout that the user names.

They are compiled as by its Makefile, with -Ofast, OpenMP and -march=native, and called unchanged:

- Its weights are (K, C). They are transposed before the clock starts.
- Its backwards add to their gradients, which are zeroed within the time, as in its training.
- One call computes dx and dweight of a matmul, so neither is offered alone. Nor are the backward
  of softmax and AdamW, which it has for whole models only. It has no operations but GPT-2's.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import shape_of
from benchmarks.ladders import Call, Rung, Runner, contiguous
from tinygpt_np.ops.cross_entropy import IGNORE_INDEX

SOURCE = "train_gpt2.c"
# With GNU inline semantics, a function of its headers that is not inlined is not missing.
FLAGS = "-Ofast -fopenmp -march=native -fPIC -shared -DTESTING -fgnu89-inline -w"
# The arguments of its functions. An array that the case does not have has a shape, in letters.
ARGUMENTS = {
    "matmul_forward": "y x transposed null 1 N C K",
    "softmax_forward": "probs:NV x 1 N V V",
    "crossentropy_forward": "losses probs targets 1 N V",
    "crossentropy_softmax_backward": "dlogits:NV dlosses probs targets 1 N V V",
    "attention_forward": "y:BTHD scores:BHTT probs:BHTT qkv B T C H",
    "attention_backward": "dqkv dscores:BHTT dprobs:BHTT dy qkv probs B T C H",
    "layernorm_forward": "y mean:N rstd:N x weight bias 1 N C",
    "layernorm_backward": "dx dweight dbias dy x weight mean rstd 1 N C",
    "gelu_forward": "y x P",
    "gelu_backward": "dx x dy P",
}
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
        run(folder, "cc", *FLAGS.split(), SOURCE, "-o", target, "-lm")
        # OpenMP reads it when it is loaded with the functions.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        library = ctypes.CDLL(target)
    for name in ARGUMENTS:
        if not hasattr(library, name):
            raise OSError(f"llm.c: {source} has no {name}")
        functions[name] = getattr(library, name)
        functions[name].restype = None
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    facts.update(source=f"{SOURCE} {digest}", compiler=compiler, flags=FLAGS, threads=threads)


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


def values_of(call: Call) -> dict[str, Any]:
    """Return the values of arguments by name."""
    values: dict[str, Any] = {**call.sizes, **call.arrays, "1": 1, "null": None}
    if "qkv" in values:
        values["C"] = values["H"] * values["D"]
    if "weight" in values and values["weight"].ndim == 2:
        weight = values["weight"]
        values["transposed"] = transposed = np.empty_like(weight.T, order="C")
        call.saves.append(partial(np.copyto, transposed, weight.T))
    return values


def bound(name: str, values: dict[str, Any]) -> Step:
    """Return the call of a function with its arguments; arrays that are missing are added."""
    arguments: list[Any] = []
    for each in ARGUMENTS[name].split():
        key, _, letters = each.partition(":")
        if key not in values:
            values[key] = np.full(shape_of(letters, values), np.nan, np.float32)
        value = values[key]
        array = isinstance(value, np.ndarray)
        # data_as keeps the array alive.
        arguments.append(value.ctypes.data_as(ctypes.c_void_p) if array else value)
    return partial(functions[name], *arguments)


def calling(name: str, zeroed: str = "", before: str = "") -> Runner:
    """Return the runner of a function that adds to `zeroed`, after the untimed forward `before`."""

    def prepare(call: Call) -> Step:
        values = values_of(call)
        if before:
            call.saves.append(bound(before, values))
        function = bound(name, values)
        arrays = [values[each] for each in zeroed.split()]

        def step() -> None:
            for array in arrays:
                array.fill(0)
            function()

        return step if arrays else function

    return Runner(prepare)


def cross_entropy_both(call: Call) -> Step:
    """Return a step that computes probabilities, losses, and the gradient in its own array."""
    values, targets = values_of(call), call.inputs["targets"]
    values["x"], values["targets"] = values["logits"], np.zeros(len(targets), np.int32)
    values["dlosses"] = np.zeros(len(targets), np.float32)
    softmax, loss = bound("softmax_forward", values), bound("crossentropy_forward", values)
    gradient = bound("crossentropy_softmax_backward", values)

    def save() -> None:
        counted = targets != IGNORE_INDEX
        values["targets"][...] = targets * counted
        values["dlosses"][...] = counted / max(int(counted.sum()), 1)

    def step() -> np.ndarray:
        softmax()
        loss()
        values["dlogits"].fill(0)
        gradient()
        return values["dlogits"]

    call.saves.append(save)
    return step


def collect_cross_entropy(call: Call, dlogits: np.ndarray) -> None:
    """Zero the losses of ignored rows, and write the gradient over the logits."""
    call.outputs["losses"][call.inputs["targets"] == IGNORE_INDEX] = 0
    call.inputs["logits"][...] = dlogits


RUNNERS = {
    "matmul": {"forward": calling("matmul_forward")},
    "softmax": {"forward": calling("softmax_forward")},
    "attention": {
        "forward": calling("attention_forward"),
        "backward": calling("attention_backward", "dqkv dscores dprobs", "attention_forward"),
    },
    "cross_entropy": {
        "loss and gradient": Runner(cross_entropy_both, collect=collect_cross_entropy),
    },
    "layer_norm": {
        "forward": calling("layernorm_forward"),
        "backward": calling("layernorm_backward", "dx dweight dbias"),
    },
    "gelu": {"forward": calling("gelu_forward"), "backward": calling("gelu_backward", "dx")},
}


def rungs(operation: str) -> list[Rung]:
    """Return llm.c's kernel of an operation, if it has one."""
    if operation not in RUNNERS:
        return []
    idea = "Loops in C, vectorised by the compiler, some of them parallelised by OpenMP."
    runners = contiguous(RUNNERS[operation])
    return [Rung("llm.c", idea, runners, threads="any", reference=True)]


def about() -> dict[str, Any]:
    """Return source, compiler, flags and threads."""
    return facts
