"""Every operation of the GPT in NumPy: its derivation, its forward, its backward.

Each file is one operation. `forward` returns `(output, saved)`; `backward(doutput, saved)` returns
the gradient of each differentiable argument, in order. Arrays keep their dtype: float32, float64,
or complex128 (with which the complex step is an exact oracle for `backward`). Inputs are never
changed. The first line of a docstring is the contract; contract.py checks every argument against it
before the function runs.

The forward of a file is a straight line with one operation per statement. The backward walks the
same lines in reverse: a comment quotes each forward line, followed by the gradients of the names
that the line reads. `d<name>` is d(loss)/d(name) and has the shape of `<name>`; the comment at the
end of a line gives that shape, in these letters:

    B batch    T time    C channels    H heads    D = C/H head size    V vocabulary
    N = B·T rows (one row per token)    K output channels of a linear layer
    P pairs of channels    F channels of a gated half
    J heads of keys and of values    R = H/J queries that share one    W = H + 2J    E = W·D
"""

from tinygpt_np.ops import (
    attention,
    contract,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    gelu_exact,
    layer_norm,
    linear,
    relu,
    relu_squared,
    rms_norm,
    rotary,
    silu,
    soft_cap,
    softmax,
    swiglu,
)

__all__ = [
    "attention",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "gelu_exact",
    "layer_norm",
    "linear",
    "relu",
    "relu_squared",
    "rms_norm",
    "rotary",
    "silu",
    "soft_cap",
    "softmax",
    "swiglu",
]

# Here and not in the files, which contain only the mathematics.
for name in __all__:
    contract.guard(globals()[name])
