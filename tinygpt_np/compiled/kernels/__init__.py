"""The operations of ops/, compiled with Numba: same names, same signatures, float32 only.

Each file holds compiled cores, which write into arrays they are given and allocate nothing (what
training calls), and `forward` and `backward` around them, which take and return what their twins in
ops/ do. The mathematics stands there; here stands what makes it fast.
"""

from tinygpt_np.compiled import settings
from tinygpt_np.ops import contract

settings.check()  # Before Numba is imported, which does not name a wrong setting.

from tinygpt_np.compiled.kernels import (  # noqa: E402
    attention,
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

for name in __all__:
    contract.guard(globals()[name])
