"""Whatever a learner writes, check ends with a verdict: a mistake or a problem in one sentence."""

from pathlib import Path

import pytest
from helpers.learners import solved

from tinygpt_np.learn import sandbox
from tinygpt_np.learn.checks import judged
from tinygpt_np.learn.course import find
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.storage.files import FileError

TEXT = solved("softmax")
LINE = "    dx = dshifted  # (..., V)\n"
AT = TEXT.partition(LINE)[0].count("\n") + 1
ENDED = "your code ended the process before it returned a gradient"
INPUT = "changes an input of backward in place: the upstream gradient, or what was saved"


def check(tmp_path: Path, text: str | bytes, name: str = "softmax") -> Verdict:
    """Return the verdict on a file, which has one sentence on one line."""
    path = tmp_path / f"{name}.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = judged(find(name), tmp_path)
    sentence = found.problem or (found.mistake.message if found.mistake else "")
    assert len(sentence.splitlines()) == (not found.ok)
    return found


def with_line(code: str) -> str:
    """Return the solved file with other code in the place of its last line."""
    assert TEXT.count(LINE) == 1
    return TEXT.replace(LINE, "".join(f"    {line}\n" for line in code.splitlines()))


def message(found: Verdict) -> str:
    """Return the status of the wrong line and the message."""
    if found.mistake:
        return f"{found.mistake.line.status}: {found.mistake.message}"
    return found.problem


# A value that is no gradient.
VALUES = {
    "dshifted * np.nan": "wrong: dx: not finite: nan at (0, 0, 0)",
    "dshifted * np.inf": "wrong: dx: not finite: ",
    "3": "shape: dx: the shape must be (2, 3, 11), not ()",
    "None": "wrong: dx: there is no gradient",
    "'gradient'": "wrong: dx: the gradient must be an array, not str",
    "f'{dshifted}'": "wrong: dx: the gradient must be an array, not str",
    "[[1], [1, 2]]": "wrong: dx: the gradient must be an array, not list",
    "dshifted.tolist()": "wrong: dx: the gradient must be an array, not list",
    "{1}": "wrong: dx: the gradient must be an array, not set",
    "{'x': dshifted}": "wrong: dx must be an array, not dict",
    "(row for row in dshifted)": "wrong: dx: the gradient must be an array, not generator",
    "lambda: dshifted": "wrong: dx: the gradient must be an array, not function",
    "np": "wrong: dx: the gradient must be an array, not module",
    "dshifted.astype('f4')": "wrong: dx: the dtype must be float64, not float32",
    "dshifted.astype(object)": "wrong: dx: the dtype must be float64, not object",
    "dshifted.astype(str)": "wrong: dx: the dtype must be float64, not <U32",
    "dshifted + 0j": "wrong: dx: the dtype must be float64, not complex128",
    "dshifted.T": "shape: dx: the shape must be (2, 3, 11), not (11, 3, 2); it looks transposed",
    "dshifted[None]": "shape: dx: the shape must be (2, 3, 11), not (1, 2, 3, 11)",
    "np.ones((10**6, 10**6))": "wrong: raises MemoryError: Unable to allocate 7.28 TiB",
    "dshifted / missing": "wrong: raises NameError: name 'missing' is not defined",
    "dshifted.smu()": "wrong: raises AttributeError: 'numpy.ndarray' object has no attribute 'smu'",
    "next(iter([]))": "wrong: raises StopIteration",
    "input('dx? ')": "wrong: raises EOFError: EOF when reading a line",
}


@pytest.mark.parametrize(("value", "sentence"), VALUES.items(), ids=VALUES)
def test_a_value_that_is_no_gradient_is_described(
    tmp_path: Path, value: str, sentence: str
) -> None:
    found = check(tmp_path, with_line(f"dx = {value}"))
    assert message(found).startswith(sentence)


RESULT = "calling the function returns another gradient than its lines; is it decorated?"
# Code that fails, or does what a backward must not do.
CODE = {
    "raise ValueError('no\\nidea')": "wrong: raises ValueError: no idea",
    "raise KeyError": "wrong: raises KeyError",
    "raise KeyboardInterrupt": "raises KeyboardInterrupt",
    "class E(Exception):\n    def __str__(self): 1 / 0\nraise E": "wrong: raises E",
    "class R:\n    def __array__(self): raise E\ndx = R()": "wrong: dx: the gradient must be an ar",
    "exit()": ENDED,
    "import os; os._exit(0)": ENDED,
    "import os; os.abort()": "your code crashed (SIGABRT) before it returned a gradient",
    "breakpoint()": "wrong: raises BdbQuit",
    "del dshifted\ndx = dshifted": "wrong: raises NameError: name 'dshifted' is not defined",
    "np = 3\ndx = np.copy(dshifted)": "wrong: raises AttributeError: 'int' object has no attribut",
    "from numpy import *": "import * only allowed at module level: this is not valid Python",
    "import not_there": "wrong: raises ModuleNotFoundError: No module named 'not_there'",
    "dx = dshifted.copy(); probs *= 2": f"wrong: {INPUT}",
    "dx = dprobs; dx[:] = dshifted": f"wrong: {INPUT}",
    "saved.append(3)": "wrong: raises AttributeError: 'tuple' object has no attribute 'append'",
    "np.exp = None\ndx = dshifted": "forward raises TypeError",
    "assert dshifted.ndim == 2\ndx = dshifted.copy()": "wrong: raises AssertionError",
    "return": f"/softmax.py: backward must return a value; the return on line {AT} has none",
    "yield dshifted": "/softmax.py: backward must be a plain function, without yield",
    "dx = await dshifted": "'await' outside async function: this is not valid Python",
    "async def f(): return dshifted\ndx = f()": "wrong: dx must be an array, not coroutine",
    "dx = ¬dshifted": "invalid character '¬' (U+00AC): this is not valid Python",
    "dx = " + "(" * 300: "too many nested parentheses: this is not valid Python",
    "dx = " + "-" * 100_000 + "1": "an expression of the file has too many parts in each other",
    "dx = dshifted\0": "source code string cannot contain null bytes: this is not valid Python",
    "\tdx = dshifted": "unexpected indent: this is not valid Python",
    "...": "wrong: raises NameError: name 'dx' is not defined",
}


@pytest.mark.parametrize(("code", "sentence"), CODE.items(), ids=[code[:50] for code in CODE])
def test_code_that_fails_is_described(tmp_path: Path, code: str, sentence: str) -> None:
    found = check(tmp_path, with_line(code))
    assert sentence in message(found)


@pytest.mark.slow
def test_a_backward_that_calls_itself_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "LIMIT", 100)  # It takes ten seconds on a slow machine.
    monkeypatch.setattr(sandbox, "WAIT", 200)
    found = check(tmp_path, with_line("dx = backward(dprobs, saved)"))
    assert "raises RecursionError: maximum recursion depth exceeded" in message(found)


@pytest.mark.parametrize("code", ["while True: pass", "while True:\n    try: 1 / 0\n    except: 0"])
def test_a_loop_that_never_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(sandbox, "LIMIT", 0.5)
    found = check(tmp_path, with_line(code))
    assert found.line in range(AT, AT + 3)
    assert "was still running after 0.5 s; does a loop never end?" in found.problem


# The text that replaces a part of the file.
FILES = {
    "a decorator": ("def backward", "@lambda f: lambda *a: 2 * f(*a)\ndef backward", RESULT),
    "another function": (
        "return dx\n",
        "return dx\n\n\nbackward = forward\n",
        "must take the upstream gr",
    ),
    "too many values": ("return dx", "return dx, dx", "backward must return dx"),
    "no value": ("return dx", "return ()", "backward must return dx"),
    "saved": ("probs, total = saved", "probs, total, x = saved", "not enough values to unpack"),
    "swapped": ("probs, total = saved", "total, probs = saved", "is not what it was in forward"),
    "a class": ("def backward(dprobs, saved)", "class backward", "this is not valid Python"),
    "async": ("def backward", "async def backward", "has no function backward"),
    "a module": ("import numpy as np", "import numppy as np", "No module named 'numppy'"),
    "forward": ("return probs, (probs, total)", "return 2 * probs, saved", "forward was changed"),
    "its loop": ("return probs, (probs, total)", "return None", "forward was changed, and raises"),
    "a state": ("    return dx\n", "    backward.calls += 1\n    return dx\n", "has no attribute"),
}


@pytest.mark.parametrize(("old", "new", "sentence"), FILES.values(), ids=FILES)
def test_a_file_that_fails_is_described(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert TEXT.count(old) == 1
    found = check(tmp_path, TEXT.replace(old, new))
    assert sentence in message(found)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"softmax\.py is not UTF-8 text, at byte \d+$"):
        check(tmp_path, TEXT.encode().replace(b"line for line", b"\xe9"))


# Unusual code that computes the gradient.
RIGHT = [
    "dx = (copied := dshifted.copy())",
    "match dshifted.ndim:\n    case 1: dx = dshifted + 0\n    case _: dx = +dshifted",
    "def copied():\n    return dshifted.copy()\ndx = copied()",
    "class Own:\n    dx = dshifted.copy()\ndx = Own.dx",
    "dx, *rest = [dshifted.copy(), 1]",
    "dx: np.ndarray = dshifted.copy()",
    "dx = eval('dshifted') + 0",
    "exec('x = 1'); dx = dshifted.copy()",
    "print('hello'); dx = dshifted.copy()",
    "if dshifted.ndim == 9: return None\nelse: return dshifted.copy()\ndx = 0",
    "for _ in range(3):\n    return dshifted.copy()\ndx = 0",
    "try:\n    dx = dshifted.copy()\nfinally:\n    del probs",
    "import warnings; warnings.warn('x'); dx = dshifted.copy()",
]


@pytest.mark.parametrize("code", RIGHT)
def test_unusual_code_that_is_right_is_accepted(tmp_path: Path, code: str) -> None:
    found = check(tmp_path, with_line(code))
    assert found.ok, found
    assert found.printed == ("hello\n" if "print" in code else "")


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{TEXT}",
        TEXT.replace("\n", "\r\n"),
        f"from __future__ import annotations\n{TEXT}",
        TEXT.replace("import numpy as np", "import numpy as np\nfrom numpy import *"),
        f"{TEXT}\nif __name__ == '__main__':\n    raise ValueError\n",
        f"{TEXT}\nopen(__file__).read()\n",
    ],
    ids=["a BOM", "CRLF", "future", "star import", "main", "reads itself"],
)
def test_unusual_files_are_accepted(tmp_path: Path, text: str) -> None:
    assert check(tmp_path, text).ok


# In the backward of a model, which stores gradients.
MODEL = {
    "return dx, 3": "backward must return a gradient for each of x",
    "return None": "dx: there is no gradient",
    "grads.clear(); return dx": "h.0.ln_1.weight: there is no gradient",
    "self.params = None; return dx": "backward changes the parameters of the model",
    "grads[f'{h}.ln_1.weight'] = 'a'; return dx": "h.0.ln_1.weight: the shape must be (4,)",
}


@pytest.mark.parametrize(("code", "sentence"), MODEL.items(), ids=MODEL)
def test_a_backward_of_a_model_that_fails_is_described(
    tmp_path: Path, code: str, sentence: str
) -> None:
    text = solved("block").replace("return dx", code)
    assert sentence in message(check(tmp_path, text, "block"))
