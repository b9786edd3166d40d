"""Source lines as HTML: in colours, and each name marked with the value that it stands for."""

import ast
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer  # pyright: ignore[reportUnknownVariableType]
from pygments.token import STANDARD_TYPES, Name, Token

LEXER = cast(Any, PythonLexer(stripnl=False, ensurenl=False))
LIGHT, DARK = "default", "github-dark"
# The name of a variable, and the key of the value it stands for, or "".
Keys = Mapping[str, str]
NONE: Keys = {}


def code(text: str, sets: Keys = NONE, reads: Keys = NONE) -> str:
    """A line of Python as spans, of each token its class in pygments.

    The names in sets (left of the sign =) and in reads (everywhere else) have data-name too, and
    data-value where their key is not "".
    """
    tokens: list[tuple[Any, str]] = list(LEXER.get_tokens(text))
    words = [word for _, word in tokens]
    value_at, at = right_side(text), 0
    parts: list[str] = []
    for index, (kind, word) in enumerate(tokens):
        keys = sets if at < value_at else reads
        is_name = kind in Name and word in keys and is_variable(words, index, at >= value_at)
        parts.append(span(kind, word, marks(word, keys[word]) if is_name else ""))
        at += len(word)
    return "".join(parts)


def span(kind: Any, word: str, attributes: str) -> str:
    short = STANDARD_TYPES.get(kind, "")
    if not attributes and (not short or kind in Token.Text):
        return escape(word)
    return f'<span class="{short}"{attributes}>{escape(word)}</span>'


def marks(name: str, key: str) -> str:
    value = f' data-value="{escape(key)}"' if key else ""
    return f' data-name="{escape(name)}"{value}'


def is_variable(words: Sequence[str], index: int, in_value: bool) -> bool:
    """Whether a name is one of its own, not that of an attribute or of an argument in a call."""
    before = next((word for word in reversed(words[:index]) if word.strip()), "")
    after = next((word for word in words[index + 1 :] if word.strip()), "")
    return before != "." and not (in_value and after == "=")


def right_side(text: str) -> int:
    """Where the value begins that a line assigns; 0 where it assigns none."""
    try:
        statement = ast.parse(text).body[0]
    except (SyntaxError, IndexError):
        return 0
    match statement:
        case ast.Assign(value=value) | ast.AugAssign(value=value):
            # Columns count bytes.
            return len(text.encode()[: value.col_offset].decode())
        case _:
            return 0


def colors() -> str:
    """The style sheet of the classes, for light and for dark."""
    light, dark = ("\n".join(rules(style)) for style in (LIGHT, DARK))
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def rules(style: str) -> list[str]:
    """Of a style the colours of the tokens only: the paper is the page's."""
    formatter = cast(Any, HtmlFormatter(style=style, nobackground=True))
    return formatter.get_token_style_defs("code")
