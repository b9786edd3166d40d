"""Sources of the first exercises: one idea of two to four lines each, in the style of ops/.

A file has the derivation, `forward` and `backward`, and the first line of a docstring is the
contract. The letters of shapes are those of ops/; they are only sizes here, and all sizes differ.
`__all__` is in the order of the course.
"""

from tinygpt_np.learn.warm_ups import (
    broadcast,
    chain,
    division,
    exp,
    gather,
    matmul,
    mean,
    product,
    reused,
    sum,  # noqa: A004
)

__all__ = [  # noqa: RUF022
    "chain",
    "sum",
    "product",
    "broadcast",
    "mean",
    "matmul",
    "gather",
    "reused",
    "exp",
    "division",
]
