"""Instructions of x86-64 (AT&T syntax) and 64-bit Arm: what each does, by its line of assembly.

Arithmetic is floating-point arithmetic, comparison and conversion. Moves, shuffles and bit masks
do not count. It is one FLOP per lane, a fused multiply-add two.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

# AVX instructions start with v. The first p or s before the size means packed or scalar;
# conversions of integers have it at the end.
X86 = re.compile(
    r"v?(?:h?add|h?sub|mul|div|r?sqrt|rcp|max|min|fn?madd|fn?msub|cmp|u?comi|cvt|round|rndscale"
    r"|scalef|getexp|getmant|range|reduce)\w*?([ps])([sd])\w*\s"
)
X86_BITS = {"x": 128, "y": 256, "z": 512}  # of a register by the first letter of its name
X86_STORED = re.compile(r"\)(?:\s*\{.*\})?$")  # The last operand is the target.
X86_READ = re.compile(r"v?(?:u?comi|p?test|cmp|bt|i?mul|i?div)")  # It is only read.
# The arrangement of a vector follows its register (v0.4s), on Darwin the mnemonic; v0.s[1] is one
# element. Vectors of SVE (z0.s) have at least 128 bits.
ARM = re.compile(
    r"(?:f(?:n?m?add|n?m?sub|n?mul|ml[as]|div|r?sqrt|recp|max|min|abd|cc?m|ac|cvt|rint)"
    r"|[su]cvtf)[\w.]*\s"
)
ARM_LANES = re.compile(r"\.(\d+)[hsd]\b|\bz\d+\.([hsd])")
SVE_LANES = {"h": 8, "s": 4, "d": 2}
FUSED = re.compile(r"v?fn?m(?:add|sub|l[as])")
JUMP = re.compile(r"(?:j\w+|b|b\.\w+|br|cbn?z|tbn?z|retq?|ud2|brk|hlt)(?:\s|$)")
CALL = re.compile(r"(?:callq?|blr?)\s")


class Instruction(NamedTuple):
    """An instruction.

    lanes: of its arithmetic, or 0. moves: "load", "store", "prefetch" or "". samples: the fraction
    of all samples that found it.
    """

    text: str
    lanes: int
    moves: str
    vector: bool
    samples: float = 0.0

    @property
    def fused(self) -> bool:
        """Whether it is a multiply-add."""
        return self.lanes > 0 and FUSED.match(self.text) is not None

    @property
    def flops(self) -> int:
        """FLOPs that it takes."""
        return self.lanes * (2 if self.fused else 1)

    @property
    def kinds(self) -> list[str]:
        """Its kinds, in a word or two each; arithmetic with its lanes."""
        if CALL.match(self.text):
            return ["call"]
        if JUMP.match(self.text):
            return ["branch"]
        work = f"{'FMA' if self.fused else 'arithmetic'} ×{self.lanes}" if self.lanes else ""
        return list(filter(None, (work, self.moves))) or ["vector" if self.vector else "scalar"]


Parser = Callable[[str], Instruction]


def parser_of(target: str) -> Parser | None:
    """Return the function that parses a line for a target, or None if the target is not known."""
    if re.search("x86.64|i[36]86", target):
        return x86
    return arm if re.search("aarch64|arm64", target) else None


def x86(text: str) -> Instruction:
    """Parse an instruction in AT&T syntax."""
    lanes, register = 0, re.search(r"%([xyz])mm", text)
    if found := X86.match(text):
        bits, size = X86_BITS[register[1] if register else "x"], 32 if found[2] == "s" else 64
        lanes = bits // size if found[1] == "p" else 1
    moves = ""
    if text.startswith("prefetch"):
        moves = "prefetch"
    elif ")" in text and not text.startswith(("lea", "nop")):
        moves = "store" if X86_STORED.search(text) and not X86_READ.match(text) else "load"
    return Instruction(text, lanes, moves, register is not None)


def arm(text: str) -> Instruction:
    """Parse an instruction of 64-bit Arm."""
    lanes = 0
    if ARM.match(text):
        found = ARM_LANES.search(text)
        lanes = 1 if found is None else int(found[1] or SVE_LANES[found[2]])
    starts = {"ld": "load", "st": "store", "pr": "prefetch"}
    vector = re.search(r"\b[vz]\d+\.|\bq\d+\b", text) is not None
    return Instruction(text, lanes, starts.get(text[:2], ""), vector)
