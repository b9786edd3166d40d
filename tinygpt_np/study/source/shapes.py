"""Compare the shapes of arrays with the shapes stated in comments, such as (B, T, 3C)."""

import re

# The size that each letter stands for.
Sizes = dict[str, int]


def contradicts(stated: str, shape: tuple[int, ...], sizes: Sizes) -> bool:
    """Return whether a shape differs from the stated one, if any; record sizes of new letters."""
    if not is_shape(stated):
        return False
    parts = [part.strip() for part in stated.strip("()").split(",") if part.strip()]
    lengths = list(shape)
    if parts[:1] == ["..."]:
        parts, lengths = parts[1:], lengths[max(len(lengths) - len(parts) + 1, 0) :]
    if len(parts) != len(lengths):
        return True
    for part, length in zip(parts, lengths, strict=True):
        match = re.fullmatch(r"(\d*)([A-Z]?)", part)
        assert match is not None
        expected, letter = int(match.group(1) or 1), match.group(2)
        if letter:
            expected *= sizes.setdefault(letter, length // expected)
        if length != expected:
            return True
    return False


def is_shape(text: str) -> bool:
    """Return whether a comment is a shape in letters and numbers."""
    return re.fullmatch(r"\((\.\.\.|\d*[A-Z]?)(, \d*[A-Z]?)*,?\)", text) is not None
