"""Nobody gets out of a typed line: not to other code, to files, or to memory without end."""

import contextlib
import re
import sys
import tokenize
from collections.abc import Generator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import OPERATIONS, source
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.ops.attention import merge_heads
from tinygpt_np.study import typed, typed_expression, typed_values
from tinygpt_np.study.typed import Refused, evaluate

RNG = np.random.default_rng(0)
NAMES: dict[str, Any] = {
    "x": RNG.standard_normal((6, 8)),
    "dx": RNG.standard_normal((6, 8)),
    "weight": RNG.standard_normal((8, 7)),
    "heads": RNG.standard_normal((2, 4, 3, 5)),
    "ids": np.array([1, 3, 1, 0, 7, 2]),
    "far": np.zeros(150_000, dtype=int),
    "mask": None,
    "count": 5,
    "shape": (8, 7),
    "saved": (None, np.ones((6, 8)), [(0.5, 2)]),
}


def same(value: Any, other: Any) -> Any:
    return value


CALLS: dict[str, Any] = {"merge_heads": merge_heads, "same.backward": same}

# Ways out: to other code, to files, to what Python keeps behind a value, to memory without end.
ATTEMPTS = r"""
().__class__.__bases__[0].__subclasses__()   x.__class__   x.__array_interface__   x.__reduce__()
x.__init__.__globals__   merge_heads.__globals__   merge_heads.__code__   np.add.at.__self__
np.exp.__class__   np.__dict__   np.__builtins__   __import__   __import__(os)   __builtins__
__builtins__.eval   __name__   _private   open   open(0)   eval(x)   exec(x)   compile(x, x, x)
getattr(x, shape)   setattr(x, shape, 1)   vars()   globals()   locals()   type(x)   print(x)
input()   breakpoint()   exit()   help()   bool(x)   int(x)   np   np.load   np.load('x')
np.load(x)   np.save(ids, x)   np.fromfile(0)   np.lib   np.lib.format   np.ndarray.tofile
np.ndarray.tofile(x, 1)   np.frompyfunc   np.frompyfunc(merge_heads, 1, 1)
np.vectorize(merge_heads)   np.apply_along_axis(merge_heads, 0, x)   np.f2py   np.f2py.compile(x)
np.memmap(1)   np.DataSource()   np.random.seed(0)   np.testing   np.ctypeslib   np.core   np.os
np.sys   np.add   np.add.at   np.add.reduce(x)   np.add.reduce   np.add.at(x, 0, 1).T
np.add.at(x.T, 0, 1)   np.add.at(x, 0, 1, 2)   np.add.at(*shape)   np.add.at(x, 0, b=1)
1 + np.add.at(x, 0, 1)   y = np.add.at(x, 0, 1)   np.exp.at(x, 0)   np.exp(x, x)
np.exp(x, out=x)   np.sum(x, None, None, x)   np.where(x, x, x, x)   np.zeros(3).dump(1)
np.errstate(all=1)   np.seterr(all=1)   np.dtype(x)   np.float64(1).__class__   np.eye(10 ** 9)
np.arange(10 ** 9)   np.copyto(x, 0)   np.sum.__wrapped__   x.dump('f')   x.dump(1)   x.dumps()
x.T.dump(1)   x.T.T.tofile(1)   x.tofile(1)   x.tofile   x.data   x.base   x.base.base   x.ctypes
x.ctypes.data   x.flags   x.flat   x.view()   x.view(x.dtype)   x.setflags(True)   x.resize(1)
x.fill(0)   x.sort()   x.put(0, 1)   x.itemset(0)   x.item   x.byteswap(True)   x.astype(bool)
x.sum   x.sum.__self__   x.sum(axis=None, dtype=None, out=x)   x.sum(out=x)   x.max(out=x)
x.mean(where=x)   x.copy(order=1)   x.reshape(48, order=1)   x.shape.__class__   x.shape.count(1)
x.dtype   x.dtype.type   x.dtype.type(3)   np.zeros(3, dtype=x.dtype.newbyteorder())
np.zeros(3, dtype=object)   np.zeros(3, object)   np.zeros(3, dtype=np.object_)
np.zeros(3, like=x)   np.full(3, merge_heads)   np.full(3, [x, x])   np.full_like(x, None)
(x).__class__   [x][0].__class__   [].append(1)   [x].clear()   {}   {1}   {1: 2}   {**shape}
*shape,   [*shape]   merge_heads   merge_heads(*shape)   merge_heads(**shape)
merge_heads(heads=heads)   merge_heads(heads, x)   merge_heads(merge_heads)
merge_heads(heads).dump(1)   merge_heads.merge_heads(x)   merge_heads()()   spy(np)
spy(lambda: 0)   spy(x for x in x)   spy(spy)   spy(spy(x).__class__)   (spy)(key=1)   spy[x]
spy.spy(x)   x.spy(x)   [spy][0](x)   (spy if 1 else spy)(x)   (lambda: spy)()(x)   (y := x)
[y := 1]   lambda: 0   (lambda: 0)()   [i for i in x]   [i for i in ().__class__.__mro__]
{i for i in x}   {i: i for i in x}   sum(i for i in x)   f'{x.__class__}'   f"{x!r}"
'{0.__class__}'.format(x)   "%s" % x   b'x'   'x'   "x" 'y'   x['f']   x["f0"]   ...   x[...] = 0
x[0] = 1   x[0] += 1   x[:] = dx   x.shape = 1   x.T = x   x.flags.writeable = True   np.pi = 3
np.exp = spy   merge_heads.x = 1   np = 1   spy = 1   float = 1   bool = 1   __builtins__ = 1
__builtins__ += 1   _x = 1   x, dx = dx, x   [x, dx] = dx   (x) = y = 1   x = dx = 1
*x, dx = shape   x: float = 1   x -= 1   x *= 2   x @= x   x **= 2   x //= 2   x = 1; dx = 2
spy(x); spy(x)   import os   from os import system   import os as x   del x   global x   pass
return x   raise x   assert spy(x)   await x   yield x   (yield x)   if x: spy(x)
while 1: spy(x)   for x in x: spy(x)   with x: spy(x)   try: spy(x)   def x(): pass
class x: pass   async def x(): pass   @spy   @spy(x)   match x:   print x   x if 1 else np.load(x)
1 if 1 else x.dump(1)   x if 1 else spy(x).__class__   None if mask is None else open(0)
dx = dx + x.dump(1)   x and spy(x)   x or spy(x)   not x   x is x   x is 1   1 is None is spy(x)
0 < 1 < 2   1 in shape   ~ids   +x   x // 2   x % 2   x << 2   ids | ids   ids & ids   ids ^ ids
1j   1j * x   0j   x ** 1j   9 ** 9 ** 9   9 ** 9 ** 9 ** 9   -9 ** 99   1 << 999999   2 ** 63 * 2
x[1:2:0]   x[::0]   x[::x]   x[::2.5]   x[spy]   x[{}]   x[()].__class__   [0] * 999999999
(0,) * 999999999   shape * 999999999   shape + shape   np.zeros(10 ** 18)
np.zeros((10 ** 6, 10 ** 6))   np.zeros((2 ** 31, 2 ** 31))   np.ones((99999, 99999))
np.tri(10 ** 9)   np.tri(99999)   np.tri(3, k=10 ** 18)   np.broadcast_to(x, (10 ** 9, 6, 8))
np.full((99999, 99999), 0.0)   np.concatenate([x] * 99999)   np.repeat(x, 10 ** 9)
np.tile(x, 10 ** 9)   np.pad(x, 10 ** 9)   far[:, None] * far   far @ far[None]
x[far][:, :, None, None] * x   x\   x = \   $x   x?   `x`   !ls   x =   = x   +=   x.   x..T   x[
(   )   0777   1_   ｎｐ.load(x)   ｎｐ.exp(x)   np.ｌoad(x)   x.ｄump(1)   ｓpy(x)
ſpy(x)   x.＿＿class＿＿   __ｉmport__(x)   𝓍   １   x − dx   spy(x) + np.load(1)
[spy(x), x.dump(1)]   spy(x) if 1 else x.dump(1)   spy(spy(x), key=1)   spy(x).dump(1)
"""
MORE_THAN_A_LINE = [
    "x" + between + "spy(x)"
    for between in ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")
    for between in (between, " # fine" + between)
]
UNSEEN = [
    "x\x00",
    "\x00",
    "x\tif 1 else spy(x)",
    "\ufeffspy(x)",
    "\ud800",
    "x\u200b",
    "x #\u202e",
    "x\x7f",
]
WAYS_OUT = [*re.split(r"\n|   ", ATTEMPTS.strip()), *MORE_THAN_A_LINE, *UNSEEN, "", " ", "#", "# x"]

# What Python reports of itself (opening, importing, running, reaching into frames) while `heard`
# is there to take it. A hook cannot be taken away again.
heard: list[str] | None = None


def hear(event: str, args: Any) -> None:
    if heard is not None and event != "compile":  # That is the parser.
        heard.append(event)


sys.addaudithook(hear)


@contextlib.contextmanager
def hearing() -> Generator[list[str]]:
    global heard
    heard = events = []
    try:
        yield events
    finally:
        heard = None


@pytest.mark.parametrize("text", WAYS_OUT)
def test_there_is_no_way_out(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.chdir(tmp_path)
    before = repr(NAMES)
    with hearing() as events, pytest.raises(Refused):
        evaluate(text, NAMES, CALLS | {"spy": called.append})
    assert (called, events, list(tmp_path.iterdir())) == ([], [], [])
    assert repr(NAMES) == before


def test_the_names_of_a_whole_module_open_nothing() -> None:
    names = dict(vars(tokenize))
    for text in ("__builtins__", "open(0)", "_builtin_open", "cookie_re", "TokenInfo", "io", "np"):
        with pytest.raises(Refused):
            evaluate(text, names, {})


def test_the_source_has_no_word_that_could_run_a_text() -> None:
    words = {"eval", "exec", "compile", "__import__", "open", "setattr", "globals", "vars"}
    for module in (typed, typed_expression, typed_values):
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        found = {t.string for t in tokenize.generate_tokens(StringIO(text).readline)}
        assert not found & words, module.__name__


def test_what_a_line_does_not_reach_is_refused_too() -> None:
    with pytest.raises(Refused, match=r"`np\.load` cannot be called here"):
        evaluate("x if mask is None else np.load(x)", NAMES, CALLS)


def test_an_error_of_a_given_call_is_a_refusal() -> None:
    def fail() -> None:
        raise RecursionError("too deep")

    with pytest.raises(Refused, match="too deep"):
        evaluate("fail()", {}, {"fail": fail})


steady = settings(deadline=None, derandomize=True, max_examples=150)
WORDS = sorted(
    {
        token.string
        for operation in OPERATIONS
        for token in tokenize.generate_tokens(StringIO(source("ops", f"{operation}.py")).readline)
        if token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.OP)
    }
    | {*NAMES}
)


def only_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        evaluate(text, NAMES, CALLS)


@steady
@given(st.text(max_size=320))
def test_no_text_raises_anything_but_refused(text: str) -> None:
    only_refused(text)


@steady
@given(st.text("""xdy[](){}.,:=+-*/@<>! 019ejn_#'"\\\n""", max_size=40))
def test_no_text_of_the_characters_of_a_line_raises_anything_but_refused(text: str) -> None:
    only_refused(text)


@steady
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_no_sequence_of_the_words_of_lines_raises_anything_but_refused(text: str) -> None:
    only_refused(text)


# Expressions that can be parsed, of values that seldom fit: random words seldom get so far.
VALUES = st.sampled_from([*NAMES, "0", "-1", "0.5", "None", "True", "9**9", "...", "np.pi"])
PARTS = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([*"+-*/@<", "**", "==", "is"]), inner).map(" ".join),
        st.tuples(inner, inner).map("{0[0]}[{0[1]}]".format),
        st.tuples(inner, inner).map("{0[0]}[:, {0[1]}]".format),
        st.tuples(inner, inner).map("({0[0]}, {0[1]})".format),
        st.tuples(inner, inner).map("[{0[0]}, {0[1]}]".format),
        st.tuples(inner, inner, inner).map("({0[0]} if {0[1]} else {0[2]})".format),
        st.tuples(inner, st.sampled_from(["T", "mT", "shape"])).map(".".join),
        st.tuples(st.sampled_from([*typed_values.FUNCTIONS, *CALLS]), inner).map(
            "{0[0]}({0[1]})".format
        ),
        st.tuples(inner, inner).map("same.backward({0[0]}, {0[1]})".format),
        st.tuples(st.sampled_from(["np.where", "np.full"]), inner, inner, inner).map(
            "{0[0]}({0[1]}, {0[2]}, {0[3]})".format
        ),
        st.tuples(inner, st.sampled_from([*typed_values.METHODS]), inner).map(
            "({0[0]}).{0[1]}({0[2]})".format
        ),
        st.tuples(inner, inner, inner).map("({0[0]}).sum(axis={0[1]}, keepdims={0[2]})".format),
        inner.map("-({})".format),
    ),
    max_leaves=8,
)


@settings(steady, max_examples=500)
@given(PARTS, st.sampled_from(["", "dx = ", "dx += ", "count += ", "dx = dx + "]))
def test_no_expression_raises_anything_but_refused(expression: str, start: str) -> None:
    only_refused(start + expression)


@steady
@given(PARTS, PARTS)
def test_nothing_scattered_raises_anything_but_refused(places: str, rows: str) -> None:
    only_refused(f"np.add.at(weight, {places}, {rows})")
