"""Numbers in sentences."""


def counted(count: int, thing: str) -> str:
    """Return a number of things in words: 1 layer, 2 layers, 1,000 layers."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
