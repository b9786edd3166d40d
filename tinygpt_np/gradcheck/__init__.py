"""Check hand-written gradients: those of this package, and your own.

Start in check.py: `check` compares a backward with the numerical gradient of its forward and
returns a report, `assert_gradients` does the same inside a test, and `check_model` checks every
parameter of a model. `check_torch` and `check_jax` check functions of PyTorch and JAX.
"""

from tinygpt_np.gradcheck.check import assert_gradients, check, check_model
from tinygpt_np.gradcheck.frameworks import check_jax, check_torch
from tinygpt_np.gradcheck.measure import CheckError
from tinygpt_np.gradcheck.report import Report, Row

__all__ = [
    "CheckError", "Report", "Row", "assert_gradients", "check", "check_jax", "check_model",
    "check_torch",
]  # fmt: skip
