"""tinygpt-np: a GPT whose every gradient is written by hand in NumPy.

`ops` holds the operations, `GPT` and `Bigram` the models built from them, `gradcheck` proves their
gradients, and yours; the README maps the rest.
"""

from tinygpt_np import gradcheck, ops
from tinygpt_np.bigram import Bigram
from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model import GPT
from tinygpt_np.tokenizer import CharTokenizer

__all__ = ["GPT", "Bigram", "CharTokenizer", "GPTConfig", "TrainConfig", "gradcheck", "ops"]
