"""Check a hand-written backward line by line and show it next to its forward.

source/ parses the functions and runs them one statement at a time; proof/ measures the
expected gradients and checks each line; render/ shows the result. README.md explains how to use it.

The module can be called: `tg.study(forward, backward, args)` studies two functions.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygpt_np.study.render.notebook import Study


class CallableModule(ModuleType):
    """A package that is a function too, because both are called tinygpt_np.study.

    Importing a module of a package sets the package as an attribute of its parent, so a function of
    that name in the parent would be replaced.
    """

    def __call__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        args: Sequence[Any] | Mapping[str, Any],
        *,
        seed: int = 0,
        title: str | None = None,
    ) -> "Study":
        """Check each line of a hand-written backward.

        Parameters
        ----------
        forward : callable
            ``forward(*args) -> (out, saved)``, defined in a file or in a cell of a notebook.
        backward : callable
            ``backward(dout, saved)`` -> the gradient of each differentiable argument.
        args : tuple or dict
            The arguments of forward, by position or by name.
        seed : int
            Seed of the upstream gradient.
        title : str, optional
            The first line of the result; by default the name of forward.

        Returns
        -------
        Study
            ``study.ok``, ``study.first_wrong`` with its ``line``, ``text``, ``message`` and
            ``cause``, and ``study.rows`` with the figures of each gradient. A notebook shows each
            backward line next to the forward line it reverses, and ``print`` the same as text.

        Raises
        ------
        StudyError
            If the functions cannot be run line by line; the message says why. A ValueError.
        """
        from tinygpt_np.study.render.notebook import study_functions

        return study_functions(forward, backward, args, seed, title)


sys.modules[__name__].__class__ = CallableModule
