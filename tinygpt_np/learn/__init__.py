"""Exercises in which each line of a backward is written by hand and checked.

README.md explains the course. In a notebook, `check` checks a function and `hint` gives a hint.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygpt_np.learn.result import GivenHint, Result

# The modules are imported in the functions, because `import tinygpt_np` must stay fast.


def check(backward: Callable[..., Any], name: str | None = None) -> "Result":
    """Check the backward of an exercise line by line.

    Parameters
    ----------
    backward : callable
        ``backward(dout, saved)`` of the exercise, in a cell or file that defines it. Its forward is
        the function ``forward`` among its global names; without one, that of the exercise.
    name : str, optional
        The exercise; by default the one that a comment above backward names.

    Returns
    -------
    Result
        ``result.ok`` is True if the exercise is solved. A notebook shows each line with its
        verdict and what is wrong with the first wrong one, and ``print`` the same as text.
    """
    from tinygpt_np.learn.functions import check_function

    return check_function(backward, name)


def hint(backward: Callable[..., Any], name: str | None = None) -> "Result | GivenHint":
    """Return the next of four hints for the first line of a backward that is open or wrong.

    The arguments are those of `check`. Without such a line, the result is that of `check`.
    """
    from tinygpt_np.learn.functions import hint_for

    return hint_for(backward, name)
