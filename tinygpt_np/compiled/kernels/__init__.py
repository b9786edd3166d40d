"""The operations of ops/, compiled with Numba: same names, same signatures, float32 only.

Each file holds compiled cores, which training calls and which write into arrays they are given and
allocate nothing, and `forward` and `backward` around them, with the arguments and results of their
twins in ops/, where the mathematics is explained.
"""

from tinygpt_np.compiled import settings
from tinygpt_np.ops import contract

settings.check()  # Before Numba is imported, whose own errors do not name a wrong setting.

from tinygpt_np.compiled.kernels import (  # noqa: E402
    attention,
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
    "attention", "cross_entropy", "dropout", "embedding", "gelu", "gelu_exact", "layer_norm",
    "linear", "relu", "relu_squared", "rms_norm", "rotary", "silu", "soft_cap", "softmax", "swiglu",
]  # fmt: skip

for name in __all__:
    contract.guard(globals()[name])
