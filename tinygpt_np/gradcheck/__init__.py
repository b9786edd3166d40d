"""Gradient checks that cannot be fooled, for the operations and models here and for your own.

`check` holds a backward against the numerical gradient of its forward and returns a report;
`assert_gradients` does so inside a test; `check_model` checks all parameters of a model.
"""

from tinygpt_np.gradcheck.check import assert_gradients, check, check_model
from tinygpt_np.gradcheck.measure import CheckError
from tinygpt_np.gradcheck.report import Report, Row

__all__ = ["CheckError", "Report", "Row", "assert_gradients", "check", "check_model"]
