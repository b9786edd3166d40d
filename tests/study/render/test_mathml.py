"""Tests of the conversion of formulas to MathML."""

import ast
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest
from helpers.architecture import OPERATIONS, source
from hypothesis import given
from hypothesis import strategies as st

from tinygpt_np.study.render.mathml import DEEPEST, Block, blocks, inline, mathml

# All characters of the grammar, and some that XML does not allow: a surrogate, NUL and U+FFFE.
SIGNS = "abdxLiΣ∫∂√½²ᵀ₀^_{}()[]|/ -+=·,:`'<&\n\u0302\x00\ud800\ufffe"
ANY_TEXT = st.one_of(st.text(SIGNS), st.text(st.characters(categories=None)))
SCRIPTED = ("msub", "msup", "msubsup", "munder", "munderover")


def read(node: ET.Element) -> str:
    """Return the structure of MathML on one line, without spaces."""
    parts = [read(child) for child in node]
    if node.tag in ("mfrac", "msqrt", "mover", *SCRIPTED):
        return f"{node.tag[1:]}({', '.join(parts)})"
    return (node.text or "") + "".join(parts)


def shown(text: str) -> str:
    return read(ET.fromstring(mathml(text)))


def identifiers(text: str) -> list[str | None]:
    return [node.text for node in ET.fromstring(mathml(text)).iter("mi")]


def words(text: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(mathml(text)).iter("mtext")]


def widths(text: str) -> list[str | None]:
    return [node.get("width") for node in ET.fromstring(mathml(text)).iter("mspace")]


def formulas(text: str) -> list[str]:
    """Return what `inline` treats as formulas."""
    return [read(node) for node in ET.fromstring(f"<p>{inline(text)}</p>").iter("math")]


def docstring(operation: str) -> str:
    return ast.get_docstring(ast.parse(source("ops", f"{operation}.py"))) or ""


LINES = [
    (block.kind, line)
    for operation in OPERATIONS
    for block in blocks(docstring(operation))
    for line in block.lines
]


def characters(text: str) -> list[str]:
    """Return the ASCII letters and digits in order, scripts included."""
    plain = unicodedata.normalize("NFKC", text)
    return [character for character in plain if character.isascii() and character.isalnum()]


# The structure of formulas, with what each shows.
STRUCTURES = {
    "a slash without spaces takes one operand on each side": ("x a/b y", "xfrac(a, b)y"),
    "a slash with spaces takes all factors on its left": ("a b · c / d", "frac(ab·c, d)"),
    "a slash with spaces takes all factors on its right": ("a / b c", "frac(a, bc)"),
    "a slash with spaces takes no term of a sum": ("a + b / c - d", "a+frac(b, c)−d"),
    "a slash with spaces takes a sum sign with its factors": (
        "Σ_s ∂L/∂S_ts K_sd / √D",
        "frac(under(∑, s)frac(∂L, ∂sub(S, ts))sub(K, sd), sqrt(D))",
    ),
    "a fraction drops its outer brackets": ("(a - b) / (c + d)", "frac(a−b, c+d)"),
    "a fraction keeps inner brackets": ("(a - b) c / d", "frac((a−b)c, d)"),
    "a derivative is a fraction": ("∂L/∂x_nc", "frac(∂L, ∂sub(x, nc))"),
    "a function and its bracket are one operand": ("exp(x)/√(2π)", "frac(exp(x), sqrt(2π))"),
    "a bracket after a space is a separate factor": ("a/b (c)", "frac(a, b)(c)"),
    "half is a fraction": ("½ x", "frac(1, 2)x"),
    "a slash without an operand is unchanged": ("a /", "a/"),
    "an underscore takes a run of letters and digits": ("x_i2y", "sub(x, i2y)"),
    "an underscore takes braces and drops them": (
        "Σ_{n : id_n = v} x",
        "under(∑, n:sub(id, n)=v)x",
    ),
    "superscript and subscript characters are scripts": (
        "x₁² + ∫₀ᶻ y⁻¹",
        "subsup(x, 1, 2)+subsup(∫, 0, z)sup(y, −1)",
    ),
    "a bracket may have a power": ("(x - μ)²", "sup((x−μ), 2)"),
    "a prime belongs to its name": ("y'_i", "sub(y′, i)"),
    "a hat is set above its letter": ("x\u0302_i", "sub(over(x, ^), i)"),
    "the hat of a gradient is on its letter": ("dx\u0302", "dover(x, ^)"),
    "a root takes the next operand": ("√D K", "sqrt(D)K"),
    "a root drops the brackets of its operand": ("√(mean(x) + ε) y", "sqrt(mean(x)+ε)y"),
    "the limit of a sum is below it": ("Σ_j x_j", "under(∑, j)sub(x, j)"),
    "dx is one operand": ("dx/dy", "frac(dx, dy)"),
    "a hyphen becomes a minus": ("a - b", "a−b"),
    "a half open interval is one bracket": ("[0, V)/2", "frac(0,V, 2)"),
    "braces are brackets": ("{x}/2", "frac(x, 2)"),
}
# Parts of formulas: the function that returns them, the formula, the parts.
PARTS: dict[str, tuple[Callable[[str], Any], str, list[str]]] = {
    "letters of an index are separate": (identifiers, "δ_ij", ["δ", "i", "j"]),
    "a word as index is one name": (identifiers, "x_target", ["x", "target"]),
    "dx is two italic letters": (identifiers, "dx", ["d", "x"]),
    "words are text": (words, "S_ts = hidden for s > t", ["hidden for"]),
    "words are separated from operands": (widths, "x if y", ["0.3em", "0.3em"]),
    "a gradient ends words": (words, "db = the column sums of dy", ["the column sums of"]),
    "an article among words is not a variable": (words, "one row a token", ["one row a token"]),
    "unknown characters are text": (words, "x # y", ["#"]),
    "factors with a space are separated": (widths, "Q K", ["0.2em"]),
    "factors without a space stay together": (widths, "2π", []),
    "three spaces make columns": (widths, "a = b   c = d", ["2em"]),
    "spaces that align equality signs make no columns": (widths, "∂L/∂x_i    = g", []),
}


@pytest.mark.parametrize("rule", STRUCTURES)
def test_the_structure_of_formulas(rule: str) -> None:
    text, expected = STRUCTURES[rule]
    assert shown(text) == expected


@pytest.mark.parametrize("rule", PARTS)
def test_the_identifiers_words_and_spaces_of_formulas(rule: str) -> None:
    parts_of, text, expected = PARTS[rule]
    assert parts_of(text) == expected


@pytest.mark.parametrize("name", ["gate", "dlogits", "merge_heads"])
def test_a_longer_name_is_one_identifier(name: str) -> None:
    assert identifiers(f"{name} = x") == [name, "x"]


@pytest.mark.parametrize("operator", "∘⊙·×≤≥≠<>→↦⇒∈≈±")
def test_an_operator_is_an_operator(operator: str) -> None:
    root = ET.fromstring(mathml(f"dy {operator} φ"))
    assert [node.text for node in root.iter("mo")] == [operator]


@pytest.mark.parametrize(
    ("formula", "markup", "count"),
    [
        ("Wᵀ", '<mi mathvariant="normal">T</mi>', 1),
        ("x = -y", '<mo form="prefix">−</mo>', 1),
        ("x - y", "prefix", 0),
        ("a = b,  c = d", 'rspace="1em">,', 1),
        ("ids: (N,)", 'rspace="0">,', 1),
        ("(a/b)", 'stretchy="true"', 2),
        ("(a + b)", 'stretchy="false"', 2),
        ("|z| < 6", '<mo lspace="0" rspace="0"', 2),
    ],
)
def test_signs_and_brackets_have_their_attributes(formula: str, markup: str, count: int) -> None:
    assert mathml(formula).count(markup) == count


# Docstrings.


def test_a_docstring_is_split_into_paragraphs_and_formulas() -> None:
    text = """Title.

        y = x
        z = y

    Of two
    lines:
        w = z
    """
    assert blocks(text) == [
        Block("text", ("Title.",)),
        Block("math", ("y = x", "z = y")),
        Block("text", ("Of two", "lines:")),
        Block("math", ("w = z",)),
    ]


def test_every_formula_of_the_operations_is_understood() -> None:
    for line in (line for kind, line in LINES if kind == "math"):
        assert all(re.fullmatch("[a-z ]{2,}", text) for text in words(line)), line


def test_no_character_of_the_operations_is_lost_or_moved() -> None:
    for kind, line in LINES:
        markup = mathml(line) if kind == "math" else f"<p>{inline(line)}</p>"
        assert characters("".join(ET.fromstring(markup).itertext())) == characters(line), line


# Prose.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Why 1/√D: a product", ["1/sqrt(D)"]),
        ("so dP = dY Vᵀ and dV = Pᵀ dY; the", ["dP=dYsup(V, T)", "dV=sup(P, T)dY"]),
        ("times 1/M for the mean", ["1/M"]),
        ("the 1/(1 - p) in one direction", ["1/(1−p)"]),
        ("of x `y` z", ["x", "z"]),
        ("each x: ∂L/∂x = ∂L/∂y · mask, with", ["x", "∂L/∂x=∂L/∂y·mask"]),
        ("with id_n = v, and", ["sub(id, n)=v"]),
        ("Φ' is the density φ(x) = exp(-x²/2)/√(2π):", ["Φ′", "φ(x)=exp(−sup(x, 2)/2)/sqrt(2π)"]),
        ("forgotten, dx = g/s.", ["dx=g/s"]),
        ("(divided by C), ε = 1e-5, as in GPT-2", ["C", "ε=1e−5"]),
        ("for |z| < 6; beyond, erf is ±1 in float64", ["|z|<6", "±1"]),
        ("the p-weighted mean, times p; dp · p · (1 - p), the", ["p", "dp·p·(1−p)"]),
        ("Q, K, V (B, H, T, D) cut", ["Q", "K", "V(B,H,T,D)"]),
        ("(T = D here)", ["T=D"]),
        ("a factor of a, as a = b says", ["a", "a=b"]),
    ],
)
def test_formulas_in_prose_are_found(text: str, expected: list[str]) -> None:
    assert formulas(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A row of a table; I do, e.g. in GPT-2's D-vectors and the k-th row",
        "Gauss's quadrature over [0, 1], and the x's channel(s)",
        '"Let\'s build GPT" 00:22:11 (2016), eq. 3; makemore part 4',
        "The weight is (in, out) - the lm_head, see gelu_exact.py and n_layer",
        "a target of -1 or 5e-4, no more than 2 + 3 of them",
        "`x = y` and `np.add.at`",
        "an open f(x + dropped bracket",
    ],
)
def test_prose_that_looks_like_a_formula_is_unchanged(text: str) -> None:
    assert formulas(text) == []


def test_prose_is_escaped_and_backticks_become_code() -> None:
    assert inline("see `a < b` & <b>") == "see <code>a &lt; b</code> &amp; &lt;b&gt;"
    assert "<mo>/</mo>" in inline("so x y / z is")


# Robustness.


@given(ANY_TEXT)
def test_any_text_gives_well_formed_markup(text: str) -> None:
    ET.fromstring(mathml(text))
    ET.fromstring(f"<p>{inline(text)}</p>")


@pytest.mark.parametrize("piece", ["(", "√", "∂", "x_{", "f(", "x/", "(x"])
def test_deep_nesting_is_supported(piece: str) -> None:
    ET.fromstring(mathml(1000 * piece))
    ET.fromstring(f"<p>{inline(1000 * piece)}</p>")


def test_brackets_beyond_the_maximum_nesting_are_unchanged() -> None:
    depth = 2 * DEEPEST
    assert shown(depth * "(" + depth * ")") == depth * "(" + depth * ")"
