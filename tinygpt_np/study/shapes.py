"""Holds arrays against the shapes that comments state: (B, T, 3C), with one size a letter."""

import re

# Of each letter, the size it stands for.
Letters = dict[str, int]


def disagreement(stated: str, shape: tuple[int, ...], letters: Letters) -> bool:
    """Whether a shape is not the one stated. Notes the sizes of letters that are new.

    What is no shape in letters is a remark, and nothing disagrees with it.
    """
    if not is_stated(stated):
        return False
    parts = [part.strip() for part in stated.strip("()").split(",") if part.strip()]
    sizes = list(shape)
    if parts[:1] == ["..."]:
        parts, sizes = parts[1:], sizes[max(len(sizes) - len(parts) + 1, 0) :]
    if len(parts) != len(sizes):
        return True
    for part, size in zip(parts, sizes, strict=True):
        match = re.fullmatch(r"(\d*)([A-Z]?)", part)
        assert match is not None
        times, letter = int(match.group(1) or 1), match.group(2)
        if letter:
            times *= letters.setdefault(letter, size // times)
        if size != times:
            return True
    return False


def is_stated(text: str) -> bool:
    """Whether a comment is a shape in letters and numbers."""
    return re.fullmatch(r"\((\.\.\.|\d*[A-Z]?)(, \d*[A-Z]?)*,?\)", text) is not None
