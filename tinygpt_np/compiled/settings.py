"""Environment variables of Numba that keep compiled kernels from being used.

They are checked before Numba is imported, which stops at some without naming them.
"""

import os
import sys
from typing import Any

# The least value of each; Numba takes whole numbers only.
LEAST = {"NUMBA_NUM_THREADS": 1, "NUMBA_DISABLE_JIT": 0}


class CompilerError(RuntimeError):
    """The settings of Numba do not allow compiled kernels."""


def compiler_is_off() -> str:
    """Return the setting that turns Numba's compiler off, or nothing if it is on."""
    numba: Any = sys.modules.get("numba")
    text = str(int(numba.config.DISABLE_JIT)) if numba else os.environ.get("NUMBA_DISABLE_JIT", "")
    return f"NUMBA_DISABLE_JIT={text}" if text.strip().isdecimal() and int(text) > 0 else ""


def check_values() -> None:
    """Raise CompilerError, which names the variable, for a value that Numba does not take."""
    for name, least in LEAST.items():
        text = os.environ.get(name)
        if text is not None and not (text.strip().isdecimal() and int(text) >= least):
            raise CompilerError(
                f"the environment variable {name} must be a whole number, {least} or more, "
                f"not {text!r}"
            )


def check() -> None:
    """Raise CompilerError unless kernels can be compiled."""
    check_values()
    if setting := compiler_is_off():
        raise CompilerError(
            f"the numba backend cannot be used, because {setting} turns Numba's compiler off: "
            "unset it, or use the numpy backend (a run keeps the one that it was started with)"
        )
