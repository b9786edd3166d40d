"""Every operation of the GPT in NumPy alone: its derivation, its forward, its backward.

One file is one operation. `forward` returns `(output, saved)`; `backward(doutput, saved)` returns
the gradient of each differentiable argument, in their order. Arrays keep the dtype they were
given: float32, float64, or complex128 (which makes the complex step an exact oracle of `backward`).
Nothing here changes its input. The first line of a docstring says what a function takes; what does
not fit it is refused, by contract.py, before the function runs.

How to read a file. The forward is a straight line, one operation a statement. The backward walks
the same lines upwards: each forward line is quoted in a comment, and below it stand the gradients
of the names that line reads. `d<name>` is d(loss)/d(name) and has the shape of `<name>`; a comment
at the end of a line gives that shape, in these letters:

    B batch    T time    C channels    H heads    D = C/H head size    V vocabulary
    N = B·T rows (one row a token)    K output channels of a linear layer
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
    softmax,
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
    "softmax",
]

# Here, not in the files: they are mathematics and nothing else.
for name in __all__:
    contract.guard(globals()[name])
