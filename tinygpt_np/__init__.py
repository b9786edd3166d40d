"""tinygpt-np: a GPT whose every gradient is written by hand in NumPy.

`ops` holds the operations, `kernels` the same compiled, `GPT` and `Bigram` the models built from
them, `gradcheck` proves their gradients, and yours; the README maps the rest.
"""

import importlib
from types import ModuleType

from tinygpt_np import gradcheck, ops
from tinygpt_np.bigram import Bigram
from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model import GPT
from tinygpt_np.tokenizers import CharTokenizer, GPT2Tokenizer, SentencePieceTokenizer

__all__ = [
    "GPT", "Bigram", "CharTokenizer", "GPT2Tokenizer", "GPTConfig", "SentencePieceTokenizer",
    "TrainConfig", "gradcheck", "ops",
]  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    """tinygpt_np.kernels, imported when it is asked for: it brings a compiler with it."""
    if name == "kernels":
        return importlib.import_module("tinygpt_np.kernels")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
