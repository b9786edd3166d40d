"""Render source lines as HTML: syntax highlighting, and each name marked with its value."""

import ast
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer  # pyright: ignore[reportUnknownVariableType]
from pygments.token import STANDARD_TYPES, Name, Token

LEXER = cast(Any, PythonLexer(stripnl=False, ensurenl=False))
LIGHT, DARK = "default", "github-dark"
# Variable names with the keys of their values on the page, or "".
Keys = Mapping[str, str]


def highlight(text: str, sets: Keys, reads: Keys) -> str:
    """Return a line of Python as HTML, with the keys of the names that it sets and reads."""
    tokens: list[tuple[Any, str]] = list(LEXER.get_tokens(text))
    words = [word for _, word in tokens]
    start, position, out = start_of_value(text), 0, ""
    for index, (kind, word) in enumerate(tokens):
        in_value = position >= start
        keys, attributes, short = reads if in_value else sets, "", STANDARD_TYPES.get(kind, "")
        if kind in Name and word in keys and is_variable(words, index, in_value):
            value = f' data-value="{escape(keys[word])}"' if keys[word] else ""
            attributes = f' data-name="{escape(word)}"{value}'
        is_plain = not attributes and (not short or kind in Token.Text)
        html = escape(word)
        out += html if is_plain else f'<span class="{short}"{attributes}>{html}</span>'
        position += len(word)
    return out


def is_variable(words: Sequence[str], index: int, in_value: bool) -> bool:
    """Return whether a name is a variable, not an attribute or a keyword argument."""
    before = next((word for word in reversed(words[:index]) if word.strip()), "")
    after = next((word for word in words[index + 1 :] if word.strip()), "")
    return before != "." and not (in_value and after == "=")


def start_of_value(text: str) -> int:
    """Return the position of the assigned expression in a line, or 0 if it is not an assignment."""
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


def style_sheet() -> str:
    """Return the CSS of the token classes, without their background, for light and dark schemes."""
    formatters = (cast(Any, HtmlFormatter(style=each, nobackground=True)) for each in (LIGHT, DARK))
    light, dark = ("\n".join(each.get_token_style_defs("code")) for each in formatters)
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
