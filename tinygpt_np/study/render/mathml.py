"""Convert the formulas in docstrings to MathML, which browsers render without a library.

The docstrings contain formulas in plain Unicode, readable in a terminal. Spacing is significant:

    a/b          a slash without spaces binds one operand on each side: 1/M Σ_n x_n is (1/M) Σ_n x_n
    a b / c      a slash with spaces takes all factors on each side: the fraction a b over c
    f(x), p_n[i] a name followed directly by a bracket is one operand, as are ∂L and √D
    x_ij, Σ_{…}  `_` and `^` take a run of letters and digits, or braces; so do ², ᵀ, ₀, ᶻ and x̂
    a,  b        two spaces separate formulas, three or more separate columns
    for each row English words stay text; a longer name such as gate or dprobs is one identifier

A formula is split into tokens, which a recursive descent parser reads with this grammar:

    row = (product [" / " product] | symbol)*     product = ratio ([· or ∘ …] ratio)*
    ratio = operand ["/" operand]                 operand = atom scripts [bracket]
"""

import html
import inspect
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

FUNCTIONS = "exp|log|ln|tanh|cos|sin|mean|softmax|max|min|erf|sum"
# Two adjacent words are prose; one of these is enough on its own.
LONE_WORDS = "and|as|each|else|for|if|in|integers|is|of|on|or|otherwise|over|to|where|with"
WORD = rf"(?!d|(?:{FUNCTIONS})\b)[a-z]{{2,}}(?![\w(\[^'])"
LETTER = "[A-Za-zΑ-Ωα-ωϕϵ]"
ACCENTS = {"\u0302": "^", "\u0303": "~", "\u0304": "¯"}
ACCENT = f"[{''.join(ACCENTS)}]?"
TOKEN = re.compile(
    rf"""\s*(?:
      (?P<code>`[^`]+`)
    | (?P<words>{WORD}(?:\s{{1,2}}(?:{WORD}|a(?=\s[a-z])))+ | (?:{LONE_WORDS})(?![\w(\[^']))
    | (?P<number>[0-9]+(?:\.[0-9]+)*(?:e[+-]?[0-9]+)?)
    | (?P<name>[A-Za-z]{{2,}}(?:_[a-z]{{3,}})+ | (?:d?[Α-Ωα-ωϕϵ](?<![ΣΠ])|[A-Za-z]+|[∂∞∇]){ACCENT})
    | (?P<dots>\.\.\.|…)
    | (?P<script>[_^](?:(?={{)|(?:[0-9]|{LETTER})+))
    | (?P<prime>['′](?![A-Za-z]))
    | (?P<open>[(\[{{]) | (?P<close>[)\]}}]) | (?P<bar>\|) | (?P<slash>/)
    | (?P<root>√) | (?P<large>[ΣΠ∑∏∫])
    | (?P<other>\S))""",
    re.VERBOSE,
)
OPERANDS = {"name", "number", "dots", "open", "root", "large", "vulgar"}
SCRIPTS = {"script", "prime", "super", "sub"}
NESTING = {"open": 1, "close": -1}
LARGE = {"Σ": "∑", "Π": "∏"}
TIMES = set("·×∘⊙⊗")
MINUS = "−"
SIGNS = {"-", MINUS, "+", "±"}
SEPARATORS = set(",:;")
# Characters that may follow a formula in prose.
BORDER = re.compile(r"[.,;:!?)\]\"”]*(\s|$)")
# The maximum nesting of brackets; deeper brackets stay plain characters.
DEEPEST = 20
NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def blocks(docstring: str) -> list[tuple[bool, list[str]]]:
    """Split a docstring into paragraphs and, indented by four or more spaces, formulas."""
    lines = inspect.cleandoc(docstring).splitlines()
    cut = groupby(lines, lambda line: (bool(line.strip()), line.startswith("    ")))
    return [(is_math, [line.strip() for line in each]) for (filled, is_math), each in cut if filled]


def mathml(text: str, display: bool = False) -> str:
    """Convert a line of formulas to <math>; with `display`, in the size of a displayed formula."""
    # A relation sign after many spaces is aligned with the line above, not a new column.
    columns = re.split(r"\s{3,}(?![\s=])", text.strip())
    body = space(2).join(Parser(tokens(column)).row() for column in columns)
    return f'<math display="block">{body}</math>' if display else f"<math>{body}</math>"


def inline(text: str) -> str:
    """Convert a paragraph to HTML: what is certainly a formula as MathML, `code` as <code>."""
    out, done = "", 0
    for start, end in [*formulas(text), (len(text), len(text))]:
        out += re.sub("`([^`]+)`", r"<code>\1</code>", escaped(text[done:start]))
        # In running text a stacked fraction would be too small, so the slash is kept.
        if formula := text[start:end]:
            out += f"<math>{Parser(tokens(formula), stacked=False).row()}</math>"
        done = end
    return out


def escaped(text: str) -> str:
    """Escape a text for HTML; characters that XML does not allow are replaced."""
    return html.escape(NOT_XML.sub("\ufffd", text), quote=False)


@dataclass(frozen=True)
class Token:
    """A token of a formula; `kind` is a group of TOKEN, `gap` the number of spaces before it."""

    kind: str
    text: str
    gap: int
    start: int
    end: int


END = Token("end", "", 0, 0, 0)


def tokens(text: str) -> list[Token]:
    """Split a text into tokens, followed by END."""
    found: list[Token] = []
    for match in TOKEN.finditer(text):
        kind = match.lastgroup or ""
        start, end = match.span(kind)
        kind = kind_of_character(match[kind]) if kind == "other" else kind
        found.append(Token(kind, text[start:end], start - match.start(), start, end))
    return [*found, END]


def kind_of_character(character: str) -> str:
    """Return super, sub or vulgar (a fraction) as defined by Unicode, operator, or unknown."""
    meaning = unicodedata.decomposition(character)
    for mark, kind in {"<super>": "super", "<sub>": "sub", "<fraction>": "vulgar"}.items():
        if meaning.startswith(mark):
            return kind
    is_sign = character in "-·,:;" or unicodedata.category(character) == "Sm"
    return "operator" if is_sign else "unknown"


class Parser:
    """A recursive descent parser; each method consumes what it is named for and returns MathML.

    `stacked` tells whether fractions are drawn with a bar instead of a slash.
    """

    def __init__(self, line: list[Token], stacked: bool = True) -> None:
        self.line = line
        self.stacked = stacked
        self.position = 0
        self.depth = 0
        # The content of each bracketed group, without its brackets.
        self.inside: dict[str, str] = {}

    @property
    def next(self) -> Token:
        """The next token."""
        return self.line[self.position]

    @property
    def after_next(self) -> Token:
        """The token after the next."""
        return self.line[self.position + 1]

    def take(self) -> Token:
        """Consume the next token and return it."""
        self.position += 1
        return self.line[self.position - 1]

    def row(self, until: str = "end") -> str:
        """Return everything up to a kind of token."""
        parts: list[str] = []
        signed = True  # A minus here would be a sign, because no operand precedes it.
        while self.next.kind not in (until, "end"):
            if self.next.kind in OPERANDS:
                parts.append(self.quotient())
                signed = False
            else:
                kind = self.next.kind
                parts.append(self.symbol(signed))
                signed = kind in ("operator", "words")
        return grouped(*parts)

    def quotient(self) -> str:
        """Return a product, or a fraction of two products."""
        top = self.product()
        if self.next.kind == "slash" and self.after_next.kind in OPERANDS:
            return self.divided(top, self.take(), self.product())
        return top

    def product(self) -> str:
        """Return one or more factors."""
        parts = [self.ratio()]
        while True:
            if self.next.text in TIMES and self.after_next.kind in OPERANDS:
                parts.append(self.symbol())
            elif self.next.kind not in OPERANDS:
                return grouped(*parts)
            elif self.next.gap:
                # A narrow space in K V, a wider one in x (1 - p) and x gate.
                is_narrow = self.next.kind != "open" and len(self.next.text) < 3
                parts.append(space(0.2 if is_narrow else 0.25))
            parts.append(self.ratio())

    def ratio(self) -> str:
        """Return an operand, or two operands with a slash and no spaces."""
        top = self.operand()
        is_tight = self.next.kind == "slash" and self.next.gap == self.after_next.gap == 0
        if is_tight and self.after_next.kind in OPERANDS:
            return self.divided(top, self.take(), self.operand())
        return top

    def divided(self, top: str, slash: Token, bottom: str) -> str:
        """Return a fraction, which needs no brackets if it is stacked."""
        if self.stacked:
            return f"<mfrac>{self.bare(top)}{self.bare(bottom)}</mfrac>"
        edges = "" if slash.gap else ' lspace="0" rspace="0"'
        return grouped(top, f"<mo{edges}>/</mo>", bottom)

    def bare(self, operand: str) -> str:
        """Return an operand without its outer brackets."""
        return self.inside.get(operand, operand)

    def operand(self) -> str:
        """Return an atom with its scripts and, after a name, its bracket."""
        if self.depth == DEEPEST:
            return self.symbol()
        self.depth += 1
        first = self.next
        result = self.scripted(self.atom(), first.text)
        # f(x) and p_n[i] are one operand, 2(x) is two; ∂ joins the operand after it.
        joins = OPERANDS if first.text == "∂" else ["open"] if first.kind == "name" else []
        if self.next.kind in joins and self.next.gap == 0:
            result = grouped(result, self.operand())
        self.depth -= 1
        return result

    def atom(self) -> str:
        """Return a name, a number, a group, a root or a sum sign."""
        if self.next.kind == "open":
            return self.group()
        token = self.take()
        match token.kind:
            case "name":
                return identifier(token.text)
            case "number":
                return tag("mn", token.text.replace("-", MINUS))
            case "vulgar":
                top, bottom = unicodedata.normalize("NFKD", token.text).split("\u2044")
                return f"<mfrac>{tag('mn', top)}{tag('mn', bottom)}</mfrac>"
            case "large":
                # No extra space: the summand is separated like any factor.
                return f'<mo lspace="0" rspace="0">{LARGE.get(token.text, token.text)}</mo>'
            case "root" if self.next.kind in OPERANDS:
                inner = self.group() if self.next.kind == "open" else self.operand()
                return f"<msqrt>{self.bare(inner)}</msqrt>"
            case kind:
                return tag("mi", "…" if kind == "dots" else token.text)

    def group(self) -> str:
        """Return a bracket with its content and, if there is one, the closing bracket."""
        opening = self.take().text
        bare = self.row("close")
        # Brackets around a single line should not stretch.
        stretchy = "true" if "<mfrac" in bare or "<munder" in bare else "false"
        opening = f'<mo form="prefix" stretchy="{stretchy}">{opening}</mo>'
        if self.next.kind != "close":
            return grouped(opening, bare)
        closing = f'<mo form="postfix" stretchy="{stretchy}">{self.take().text}</mo>'
        result = grouped(opening, bare, closing)
        self.inside[result] = bare
        return result

    def scripted(self, base: str, text: str) -> str:
        """Return a base with its scripts; primes belong to the base, as in y′_i."""
        below: list[str] = []
        above: list[str] = []
        while self.next.kind in SCRIPTS and self.next.gap == 0:
            token = self.take()
            if token.kind == "prime":
                base = grouped(base, '<mo form="postfix">′</mo>')
            else:
                is_below = token.kind == "sub" or token.text.startswith("_")
                (below if is_below else above).append(self.script(token))
        if not below and not above:
            return base
        low, high = ("under", "over") if text in set("ΣΠ∑∏") else ("sub", "sup")
        name = "m" + low * bool(below) + high * bool(above)
        scripts = "".join(grouped(*script) for script in (below, above) if script)
        return f"<{name}>{base}{scripts}</{name}>"

    def script(self, token: Token) -> str:
        """Return the content of a subscript or superscript."""
        if token.text in "_^":
            return self.bare(self.group())
        if token.kind == "script":
            runs = re.findall(f"[0-9]+|[A-Za-z]{{4,}}|{LETTER}", token.text)
            return grouped(*(tag("mn" if run.isdigit() else "mi", run) for run in runs))
        plain = unicodedata.normalize("NFKC", token.text)
        if plain == "T":
            return '<mi mathvariant="normal">T</mi>'
        return tag("mn" if plain.isdigit() else "mi" if plain.isalpha() else "mo", plain)

    def symbol(self, signed: bool = False) -> str:
        """Return an operator, a separator, text or an unmatched bracket unchanged."""
        token = self.take()
        if token.kind == "words":
            before = space(0.3) if token.gap and not signed else ""
            return before + tag("mtext", token.text) + (space(0.3) if self.next.gap else "")
        if token.text in SEPARATORS:
            after = {0: "0", 1: "0.3em"}.get(self.next.gap, "1em")
            before = "" if token.gap else ' lspace="0"'
            return f'<mo{before} rspace="{after}">{token.text}</mo>'
        if token.kind == "operator":
            form = ' form="prefix"' if signed and token.text in SIGNS else ""
            return f"<mo{form}>{escaped(token.text.replace('-', MINUS))}</mo>"
        if token.kind == "bar" and (token.gap == 0 or self.next.gap == 0):
            return '<mo lspace="0" rspace="0" stretchy="false">|</mo>'
        if token.kind in ("open", "close", "slash", "bar"):
            return f'<mo stretchy="false">{token.text}</mo>'
        return tag("mtext", token.text)


def grouped(*parts: str) -> str:
    """Return parts as one element."""
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def tag(name: str, text: str) -> str:
    """Return an element that contains a text."""
    return f"<{name}>{escaped(text)}</{name}>"


def space(ems: float) -> str:
    """Return a horizontal space."""
    return f'<mspace width="{ems}em"/>'


def identifier(name: str) -> str:
    """Return a name; browsers set single letters in italics, so dx becomes two of them."""
    if re.fullmatch(f"d{LETTER}{ACCENT}", name):
        return grouped(tag("mi", "d"), identifier(name[1:]))
    if name[-1] in ACCENTS:
        accent = f'<mo stretchy="false">{ACCENTS[name[-1]]}</mo>'
        return f'<mover accent="true">{identifier(name[:-1])}{accent}</mover>'
    return tag("mi", name)


def formulas(text: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of the formulas in a paragraph; unclear cases count as text."""
    for run in map(trimmed, runs(tokens(text))):
        if run and any(token.kind == "name" or not token.text.isascii() for token in run):
            start, end = run[0].start, run[-1].end
            if re.search(r"(^|[\s(\"“])$", text[:start]) and BORDER.match(text, end):
                yield start, end


def runs(line: list[Token]) -> Iterator[list[Token]]:
    """Yield the longest runs of tokens that may be formulas; commas only inside brackets."""
    run: list[Token] = []
    depth = 0
    for token, after in pairwise(line):
        inside = depth + NESTING.get(token.kind, 0)
        separates = token.text in SEPARATORS and not depth
        multiplied = token.kind == "name" and len(run) > 1 and run[-1].text in TIMES
        if (multiplied or may_be_maths(token, after)) and inside >= 0 and not separates:
            run.append(token)
            depth = inside
        else:
            yield run
            run, depth = [], 0
    yield run


def may_be_maths(token: Token, after: Token) -> bool:
    """Return whether a token may be part of a formula in prose."""
    if token.kind == "script":
        return len(token.text) <= 3  # p_n and rows_nc, but not n_layer
    if token.kind != "name":
        return token.kind not in ("words", "code", "unknown")
    if after.gap == 0 and after.kind in ("script", "super", "sub"):
        return True
    if re.fullmatch(FUNCTIONS, token.text):
        return after.gap == 0 and after.kind in ("open", "prime")
    if token.text == "a":
        return after.text in {",", ".", ";", ":", "="}  # not the article "a"
    is_letter = re.fullmatch(f"d?{LETTER}{ACCENT}|[∂∞∇]", token.text)
    return bool(is_letter) and token.text not in ("A", "I", "do")


def trimmed(run: list[Token]) -> list[Token]:
    """Remove operators that lack an operand; return nothing if brackets stay open."""
    while run and run[-1].kind in ("operator", "slash", "open", "root", "large"):
        run = run[:-1]
    unclosed = sum(NESTING.get(token.kind, 0) for token in run)
    while run and (not begins(*run[:2]) or (unclosed and run[0].kind == "open")):
        unclosed -= NESTING.get(run[0].kind, 0)
        run = run[1:]
    return [] if unclosed else run


def begins(token: Token, after: Token = END) -> bool:
    """Return whether a formula can start with a token."""
    if token.text in SIGNS:
        return after.kind in OPERANDS and after.gap == 0
    return token.kind in OPERANDS or token.kind == "bar"
