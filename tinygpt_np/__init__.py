"""tinygpt-np: a GPT in NumPy with hand-written gradients.

`ops` holds the operations, `kernels` the same compiled, `GPT` and `Bigram` the models built from
them, `gradcheck` proves their gradients, and yours; the README maps the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tinygpt_np import hooks

if TYPE_CHECKING:
    from tinygpt_np import gradcheck, learn, ops
    from tinygpt_np.compiled import kernels as kernels
    from tinygpt_np.config import GPTConfig, TrainConfig
    from tinygpt_np.model.bigram import Bigram
    from tinygpt_np.model.gpt import GPT
    from tinygpt_np.study.render.notebook import study_functions as study
    from tinygpt_np.text.tokenizers import CharTokenizer, GPT2Tokenizer, SentencePieceTokenizer
    from tinygpt_np.training.runs import load

__version__ = "0.1.0"
__all__ = [
    "GPT", "Bigram", "CharTokenizer", "GPT2Tokenizer", "GPTConfig", "SentencePieceTokenizer",
    "TrainConfig", "gradcheck", "learn", "load", "ops", "study",
]  # fmt: skip

# The module of each public name. A module is imported when a name of it is first used: NumPy
# takes a tenth of a second, and the compiler behind kernels one (so `import *` leaves them out).
MODULES = {
    "GPT": "tinygpt_np.model.gpt", "Bigram": "tinygpt_np.model.bigram",
    "CharTokenizer": "tinygpt_np.text.tokenizers", "GPT2Tokenizer": "tinygpt_np.text.tokenizers",
    "SentencePieceTokenizer": "tinygpt_np.text.tokenizers",
    "GPTConfig": "tinygpt_np.config", "TrainConfig": "tinygpt_np.config",
    "gradcheck": "tinygpt_np.gradcheck", "kernels": "tinygpt_np.compiled.kernels",
    "learn": "tinygpt_np.learn", "load": "tinygpt_np.training.runs", "ops": "tinygpt_np.ops",
    "study": "tinygpt_np.study",
}  # fmt: skip


# Study explains what gradcheck finds wrong, and is imported only then.
EXPLAIN = "tinygpt_np.study.proof.explain"
hooks.explain = lambda *args: importlib.import_module(EXPLAIN).explain(*args)
hooks.cause_of_bug = lambda *args: importlib.import_module(EXPLAIN).cause_of_bug(*args)


def __dir__() -> list[str]:
    return [*MODULES, "__version__"]


if not TYPE_CHECKING:  # A type checker reads the imports above, and finds misspelt names.

    def __getattr__(name: str) -> Any:
        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(MODULES[name])
        found = module if module.__name__.endswith(f".{name}") else getattr(module, name)
        globals()[name] = found
        return found
