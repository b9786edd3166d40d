"""The three functions that users call: check a pair of functions, assert it, check a model.

function_check.py and model_check.py do the work: measure.py finds the numerical gradient with one
of the oracles in oracles.py, verdict.py compares it with the hand-written one, report.py shows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np import hooks
from tinygpt_np.gradcheck.calls import Arguments, check_callable
from tinygpt_np.gradcheck.function_check import FunctionCheck
from tinygpt_np.gradcheck.measure import Method
from tinygpt_np.gradcheck.model_check import ModelCheck
from tinygpt_np.gradcheck.progress import progress
from tinygpt_np.gradcheck.report import Report
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.storage.parameters import Tensors


def check(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Arguments,
    wrt: Sequence[str] | None = None,
    method: Method = "complex",
    *,
    directions: int | None = None,
    seed: int = 0,
    truth: Callable[..., Any] | None = None,
    title: str | None = None,
) -> Report:
    """Check a hand-written backward against the numerical gradient of its forward.

    Also checked: shape and dtype; that neither function changes its inputs and backward does not
    change `saved`; that each gradient has its own memory; and that strided, reversed,
    Fortran-ordered, read-only and broadcast inputs give the same result.

    Large arguments are checked along random directions; a note says so. After two seconds, the
    progress is shown on stderr.

    Parameters
    ----------
    forward : callable
        ``forward(*args) -> (out, saved)`` with ``out`` an array of any shape, or several in a
        tuple, list or dict, also as ``(h, c, saved)``; a method that keeps what is saved on its
        object and returns the outputs alone; or a plain function that returns a scalar.
    backward : callable
        ``backward(dout, saved)`` -> the gradients. ``dout`` is nested like the outputs, or there
        is an argument for each (``dh, dc, saved``). A method takes ``dout`` alone; the gradient of
        a plain function takes the arguments of forward. The gradients come by position, nested like
        the arguments, or by a key such as W1 or dW1; a method may store them as ``self.dW1``. None
        stands for no gradient.
    args : tuple or dict
        The arguments of forward, by position or by name. Parameters may be nested in dicts, lists,
        tuples and objects. float32 arguments are checked in float32 against a float64 oracle.
    wrt : sequence of str, optional
        The arguments that must have a gradient, or the arrays in them, as ``params['W1']``. By
        default every array of floats for which backward returns one; a note names the others.
    method : {"complex", "central", "richardson", "taylor"}
        The oracle. "complex" falls back to Richardson extrapolation if forward is not complex-safe.
    directions : int, optional
        Check this many random directions per argument instead of every element.
    seed : int
        Seed of the upstream gradient and the directions.
    truth : callable, optional
        The forward to differentiate, if forward itself cannot take float64 (a float32 kernel). Its
        outputs must be those of forward.
    title : str, optional
        The first line of the report; by default the name of forward.

    Returns
    -------
    Report
        One row per argument; ``report.ok`` is True if all are right.

    Raises
    ------
    CheckError
        If the pair cannot be checked; the message says what to change. A ValueError.
    """
    check_callable("backward", backward)
    with progress("checking the gradients") as announce:
        function_check = FunctionCheck(
            forward, args, wrt, backward=backward, method=method, directions=directions,
            seed=seed, truth=truth, title=title, announce=announce,
        )  # fmt: skip
        report = function_check.report(backward)
        if any(row.verdict == "wrong" for row in report.rows):
            names = tuple(row.name for row in report.rows)
            explanation = hooks.explain(forward, backward, function_check.call.args, names, seed)
            report = report if explanation is None else explained(report, explanation)
        return report


def explained(report: Report, explanation: hooks.Explanation) -> Report:
    """Add to a report where the first mistake is, and the causes of its wrong gradients."""
    rows = (
        replace(row, cause=explanation.causes.get(row.name) or row.cause)
        if row.verdict == "wrong" else row
        for row in report.rows
    )  # fmt: skip
    notes = (f"the first mistake is in {explanation.where}", *report.notes)
    return replace(report, rows=tuple(rows), notes=notes)


def assert_gradients(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Arguments,
    wrt: Sequence[str] | None = None,
    method: Method = "complex",
    **options: Any,
) -> None:
    """Raise AssertionError with the report of `check` if a gradient is wrong; same options."""
    report = check(forward, backward, args, wrt, method, **options)
    if not report.ok:
        raise AssertionError(f"\n{report}")


def check_model(
    model: LanguageModel,
    tokens: np.ndarray,
    targets: np.ndarray,
    masks: Tensors | None = None,
    method: Method = "complex",
    *,
    directions: int | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Check the loss and every gradient of a model against the numerical ones.

    loss_and_grads is called three times: once after the parameters were changed in place, as an
    optimizer changes them, and twice at the original parameters, where the loss and each gradient
    must be right both times. This catches state that survives a call, such as a gradient that is
    not set to zero or weights packed before the update. The parameters are restored at the end.

    Parameters
    ----------
    model : LanguageModel
        The model, in float32 or float64.
    tokens, targets : ndarray of int
        The batch ``(B, T)`` to check at.
    masks : dict of ndarray, optional
        Dropout masks to replay; None for no dropout.
    directions : int, optional
        Check this many random directions per parameter. By default every element of a model of up
        to 2000 parameters, and 4 directions of a larger one.
    method, seed, title
        As for `check`.

    Returns
    -------
    Report
        One row per parameter, one for the key bias of each layer, and one for the loss.
    """
    title = title or type(model).__name__
    with progress("checking the model") as announce:
        return ModelCheck(
            model, tokens, targets, masks, method, directions, seed, title, announce
        ).report()
