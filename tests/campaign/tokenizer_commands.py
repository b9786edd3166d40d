"""Commands that read the files of a tokenizer."""

from random import Random

from campaign import bases
from helpers import byte_pairs

TEXT = "hi there, the hello  re\n<|endoftext|> é🙂 hii"


SIZE = len(byte_pairs.vocabulary())


def tokenize(place: str, kind: str = "gpt2", text: str = TEXT) -> list[str]:
    return ["tokenize", text, "--tokenizer", kind, "--tokenizer-path", place]


def prepare(place: str, kind: str = "gpt2") -> list[str]:
    flags = ["--tokenizer", kind, "--tokenizer-path", place]
    return ["prepare", "--data", "text.txt", "--out", "out", *flags]


def train(place: str, kind: str = "gpt2") -> list[str]:
    flags = ["--tokenizer", kind, "--tokenizer-path", place]
    return ["train", "--data", "text.txt", *bases.TINY, "--eval-only", *flags]


def reader(rng: Random, place: str, kind: str = "gpt2") -> list[str]:
    return rng.choice((tokenize, prepare, train))(place, kind)
