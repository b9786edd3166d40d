"""Tests of the conversion of formulas to MathML."""

import ast
import re
import unicodedata
import xml.etree.ElementTree as ET

import pytest
from helpers.architecture import OPERATIONS, source
from hypothesis import given
from hypothesis import strategies as st

from tinygpt_np.study.render.mathml import DEEPEST, blocks, inline, mathml

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


LINES = [
    (is_math, line)
    for operation in OPERATIONS
    for is_math, lines in blocks(
        ast.get_docstring(ast.parse(source("ops", f"{operation}.py"))) or ""
    )
    for line in lines
]


def characters(text: str) -> list[str]:
    """Return the ASCII letters and digits in order, scripts included."""
    plain = unicodedata.normalize("NFKC", text)
    return [character for character in plain if character.isascii() and character.isalnum()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A slash without spaces takes one operand on each side, one with spaces all factors.
        ("x a/b y", "xfrac(a, b)y"),
        ("a + a b · c / d e - f", "a+frac(ab·c, de)−f"),
        (
            "Σ_s ∂L/∂S_ts K_sd / √D",
            "frac(under(∑, s)frac(∂L, ∂sub(S, ts))sub(K, sd), sqrt(D))",
        ),
        # A fraction or root drops the outer brackets of its operands only.
        ("(a - b) / (c + d)", "frac(a−b, c+d)"),
        ("(a - b) c / d", "frac((a−b)c, d)"),
        ("[0, V)/2", "frac(0,V, 2)"),
        ("{x}/2", "frac(x, 2)"),
        ("√(mean(x) + ε) y", "sqrt(mean(x)+ε)y"),
        # A function and its bracket are one operand; a bracket after a space is another.
        ("exp(x)/√(2π)", "frac(exp(x), sqrt(2π))"),
        ("a/b (c)", "frac(a, b)(c)"),
        ("dx/dy", "frac(dx, dy)"),
        ("½ x", "frac(1, 2)x"),
        ("a /", "a/"),
        # Scripts take a run of letters and digits, or braces, which they drop.
        ("x_i2y", "sub(x, i2y)"),
        ("Σ_{n : id_n = v} x", "under(∑, n:sub(id, n)=v)x"),
        ("x₁² + ∫₀ᶻ y⁻¹", "subsup(x, 1, 2)+subsup(∫, 0, z)sup(y, −1)"),
        ("(x - μ)²", "sup((x−μ), 2)"),
        ("y'_i", "sub(y′, i)"),
        ("x\u0302_i", "sub(over(x, ^), i)"),
        ("dx\u0302", "dover(x, ^)"),
    ],
)
def test_the_structure_of_formulas(text: str, expected: str) -> None:
    assert read(ET.fromstring(mathml(text))) == expected


@pytest.mark.parametrize(
    ("text", "element", "expected"),
    [
        ("δ_ij", "mi", ["δ", "i", "j"]),
        ("x_target", "mi", ["x", "target"]),
        ("dx", "mi", ["d", "x"]),
        *((f"{name} = x", "mi", [name, "x"]) for name in ("gate", "dlogits", "merge_heads")),
        ("S_ts = hidden for s > t", "mtext", ["hidden for"]),
        ("db = the column sums of dy", "mtext", ["the column sums of"]),
        ("one row a token", "mtext", ["one row a token"]),
        ("x # y", "mtext", ["#"]),
        *((f"dy {operator} φ", "mo", [operator]) for operator in "∘⊙·×≤≥≠<>→↦⇒∈≈±"),
    ],
)
def test_the_identifiers_words_and_operators_of_formulas(
    text: str, element: str, expected: list[str]
) -> None:
    assert [node.text for node in ET.fromstring(mathml(text)).iter(element)] == expected


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
        ("x if y", '<mspace width="0.3em"/>', 2),
        ("Q K", '<mspace width="0.2em"/>', 1),
        ("2π", "mspace", 0),
        # Three spaces separate columns, except before an aligned sign.
        ("a = b   c = d", '<mspace width="2em"/>', 1),
        ("∂L/∂x_i    = g", "mspace", 0),
    ],
)
def test_signs_brackets_and_spaces_have_their_attributes(
    formula: str, markup: str, count: int
) -> None:
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
    cut = [(False, ["Title."]), (True, ["y = x", "z = y"]), (False, ["Of two", "lines:"])]
    assert blocks(text) == [*cut, (True, ["w = z"])]


def test_every_formula_of_the_operations_is_understood_and_no_character_is_lost() -> None:
    for is_math, line in LINES:
        root = ET.fromstring(mathml(line) if is_math else f"<p>{inline(line)}</p>")
        assert characters("".join(root.itertext())) == characters(line), line
        words = [node.text or "" for node in root.iter("mtext")] if is_math else []
        assert all(re.fullmatch("[a-z ]{2,}", text) for text in words), line


# Prose.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so dP = dY Vᵀ and dV = Pᵀ dY; the", ["dP=dYsup(V, T)", "dV=sup(P, T)dY"]),
        ("times 1/M for the mean, 1/√D: a product", ["1/M", "1/sqrt(D)"]),
        ("of x `y` z", ["x", "z"]),
        ("each x: ∂L/∂x = ∂L/∂y · mask, with", ["x", "∂L/∂x=∂L/∂y·mask"]),
        ("with id_n = v, and", ["sub(id, n)=v"]),
        ("Φ' is the density φ(x) = exp(-x²/2)/√(2π):", ["Φ′", "φ(x)=exp(−sup(x, 2)/2)/sqrt(2π)"]),
        ("(divided by C), ε = 1e-5, as in GPT-2", ["C", "ε=1e−5"]),
        ("for |z| < 6; beyond, erf is ±1 in float64", ["|z|<6", "±1"]),
        ("the p-weighted mean, times p; dp · p · (1 - p), the", ["p", "dp·p·(1−p)"]),
        ("Q, K, V (B, H, T, D) cut (T = D here)", ["Q", "K", "V(B,H,T,D)", "T=D"]),
        ("a factor of a, as a = b says", ["a", "a=b"]),
        # Prose that looks like a formula.
        ("A row of a table; I do, e.g. in GPT-2's D-vectors and the k-th row", []),
        ("Gauss's quadrature over [0, 1], and the x's channel(s)", []),
        ('"Let\'s build GPT" 00:22:11 (2016), eq. 3; makemore part 4', []),
        ("The weight is (in, out) - the lm_head, see gelu_exact.py and n_layer", []),
        ("a target of -1 or 5e-4, no more than 2 + 3 of them", []),
        ("`x = y` and `np.add.at`", []),
        ("an open f(x + dropped bracket", []),
    ],
)
def test_formulas_in_prose_are_found(text: str, expected: list[str]) -> None:
    root = ET.fromstring(f"<p>{inline(text)}</p>")
    assert [read(node) for node in root.iter("math")] == expected


def test_prose_is_escaped_and_backticks_become_code() -> None:
    assert inline("see `a < b` & <b>") == "see <code>a &lt; b</code> &amp; &lt;b&gt;"
    assert "<mo>/</mo>" in inline("so x y / z is")


# Robustness.


@given(ANY_TEXT)
def test_any_text_gives_well_formed_markup(text: str) -> None:
    ET.fromstring(mathml(text))
    ET.fromstring(f"<p>{inline(text)}</p>")


def test_deep_nesting_is_supported() -> None:
    for piece in ("(", "√", "∂", "x_{", "f(", "x/", "(x"):
        ET.fromstring(mathml(1000 * piece))
        ET.fromstring(f"<p>{inline(1000 * piece)}</p>")
    brackets = 2 * DEEPEST * "(" + 2 * DEEPEST * ")"
    assert read(ET.fromstring(mathml(brackets))) == brackets
