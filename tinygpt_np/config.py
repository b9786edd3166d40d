"""Configuration, presets and random generators. The names of the settings are nanoGPT's."""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin

import numpy as np

from tinygpt_np.machine import MOST_THREADS

# Epsilon of AdamW, as in PyTorch.
ADAM_EPSILON = 1e-8

# Muon's Newton-Schulz iteration: its coefficients and steps, and what is added to the norm.
NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, MUON_EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7

# The default vocabulary size of SentencePiece.
PIECES = 1024


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a GPT, without its vocabulary."""

    block_size: int = 64
    """Longest context, in tokens (T)."""
    n_layer: int = 4
    """Number of blocks."""
    n_head: int = 4
    """Attention heads in each block (H); must divide n_embd."""
    n_kv_head: int = 0
    """Heads of keys and values (J), each shared by n_head / n_kv_head queries; 0 is n_head."""
    n_embd: int = 128
    """Width: the number of channels of each token (C)."""
    n_inner: int = 0
    """Width of the feed-forward layers (F); 0 is 4 n_embd."""
    dropout: float = 0.0
    """Dropout probability during training, in [0, 1)."""
    bias: bool = False
    """Use biases in linear layers and layer norms."""
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    """Normalization of the input of each branch and of the head."""
    norm_epsilon: float = 1e-5
    """Added to the variance or mean square under the root."""
    positions: Literal["learned", "rotary_halves", "rotary_pairs"] = "learned"
    """Learned position embeddings, or queries and keys rotated by their position: channel i of a
    head with channel i + D/2 (Llama on Hugging Face) or with its neighbour (the paper)."""
    rope_theta: float = 10_000.0
    """Base of the wavelengths of rotary positions."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head by their root mean square."""
    activation: Literal["gelu", "gelu_exact", "relu", "relu_squared", "silu", "swiglu"] = "gelu"
    """Activation of the feed-forward layers; gelu is the tanh approximation."""
    init_std: float = 0.02
    """Standard deviation of the initial matrices; the last of each branch is divided by the root of
    the number of branches."""
    embedding_std: float = 0.02
    """Standard deviation of the initial token embeddings."""
    tied_head: bool = True
    """Use the token embedding as the weight of the output head; else it has one, zero at first."""
    logit_soft_cap: float = 0.0
    """Bound the logits smoothly to (-cap, cap); 0 is no bound."""

    def __post_init__(self) -> None:
        require_types(self)
        require_positive(self, "block_size", "n_layer", "n_head", "n_embd")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, "
                f"but {self.n_embd} is not a multiple of {self.n_head}"
            )
        divides = self.n_kv_head >= 0 and self.n_head % self.kv_heads == 0
        require(self, "n_kv_head", divides, f"0 or a divisor of n_head = {self.n_head}")
        rotates = self.positions == "learned" or self.head_size % 2 == 0
        odd = f"learned for heads of the odd size n_embd / n_head = {self.head_size}"
        require(self, "positions", rotates, odd)
        require_positive(self, "norm_epsilon", "rope_theta", "init_std", "embedding_std")
        for name in ("n_inner", "logit_soft_cap"):
            require(self, name, getattr(self, name) >= 0, "zero or more")
        require(self, "dropout", 0 <= self.dropout < 1, "in [0, 1)")

    @property
    def head_size(self) -> int:
        """The channels of a head (D)."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """The heads of keys and of values (J)."""
        return self.n_kv_head or self.n_head

    @property
    def qk_width(self) -> int:
        """The columns of c_attn's output that hold queries and keys, (H + J) D."""
        return (self.n_head + self.kv_heads) * self.head_size

    @property
    def qkv_width(self) -> int:
        """The columns of c_attn's output (E), (H + 2J) D: queries, keys and values."""
        return (self.n_head + 2 * self.kv_heads) * self.head_size

    @property
    def inner_width(self) -> int:
        """The width of the feed-forward layers after their activation (F)."""
        return self.n_inner or 4 * self.n_embd

    @property
    def hidden_width(self) -> int:
        """The columns of c_fc's output: F, or for SwiGLU, which multiplies two halves, 2F."""
        return (2 if self.activation == "swiglu" else 1) * self.inner_width

    @property
    def head_name(self) -> str:
        """The name of the parameter (V, C) of the output head."""
        return "wte.weight" if self.tied_head else "lm_head.weight"

    def in_words(self) -> str:
        """Return the shape as text, such as 1 layer, 2 heads, 8 channels, block 8."""
        counts = ((self.n_layer, "layer"), (self.n_head, "head"), (self.n_embd, "channel"))
        return f"{', '.join(counted(*each) for each in counts)}, block {self.block_size}"


@dataclass(frozen=True, kw_only=True)
class GPTConfig(Architecture):
    """The configuration of a GPT."""

    vocab_size: int
    """Number of distinct tokens (V)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Architecture):
    """A training run: architecture, data, optimizer, schedule. The defaults are preset `cpu`."""

    data: str = "shakespeare"
    """shakespeare (embedded), words (its distinct words, one on each line), tinyshakespeare
    (downloaded once), the path of a UTF-8 text, or a folder with train.bin and val.bin from tinygpt
    prepare or nanoGPT."""
    tokenizer: Literal["char", "gpt2", "sentencepiece"] = "char"
    """The tokens: characters, GPT-2's byte pairs, or SentencePiece's pieces."""
    tokenizer_path: str = ""
    """The files of the tokenizer: a folder with vocab.bpe and encoder.json (or vocab.json and
    merges.txt), or a .model. By default, gpt2 is loaded from tiktoken's cache, and SentencePiece is
    trained on the text."""
    vocab_size: int = PIECES
    """Vocabulary size of SentencePiece."""
    init_from: str = "scratch"
    """scratch, or a model to fine-tune: gpt2, gpt2-medium, gpt2-large, gpt2-xl, the folder of a
    GPT-2 or Llama, or a run. Its architecture is kept; a smaller block_size crops it."""
    seed: int = 1337
    """Seed of the initial weights, the batches and dropout."""
    backend: Literal["numba", "numpy"] = "numba"
    """The implementation: compiled by Numba, or NumPy only."""
    threads: int = 0
    """Threads of the Numba backend; 0 is one per core. The losses do not depend on it."""
    matmul: Literal["numba", "blas"] = "numba"
    """Matrix multiplication of the Numba backend: its own kernels, or NumPy's BLAS."""
    dtype: Literal["float32", "float64"] = "float32"
    """Dtype of the parameters; float64 needs --backend numpy."""
    data_order: Literal["random", "epochs"] = "random"
    """random: sequences from random places; epochs: each part of the text once before any is used
    again."""
    batch_size: int = 12
    """Sequences per batch (B)."""
    gradient_accumulation_steps: int = 1
    """Batches per step, divided among the ranks of MPI. Gradients are averaged over them."""
    reduction: Literal["exact", "fast"] = "exact"
    """How ranks of MPI add gradients: exact gives the same bits for any number of ranks; fast lets
    MPI choose the order."""
    max_iters: int = 2000
    """Number of training steps."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after the warm-up."""
    min_lr: float = 1e-4
    """Learning rate after the decay."""
    warmup_iters: int = 100
    """Steps of linear warm-up."""
    lr_decay_iters: int = 2000
    """Step at which the decay ends (on the command line --max-iters, if not given)."""
    lr_decay: Literal["cosine", "linear"] = "cosine"
    """Shape of the decay from learning_rate to min_lr."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the others."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon; it follows the schedule of learning_rate."""
    muon_momentum: float = 0.95
    """Muon's momentum."""
    weight_decay: float = 0.1
    """Weight decay, for matrices only."""
    beta1: float = 0.9
    """AdamW's decay rate for the moving average of the gradient."""
    beta2: float = 0.99
    """AdamW's decay rate for the moving average of the squared gradient."""
    grad_clip: float = 1.0
    """Clip the global norm of the gradients to this value; 0 turns clipping off."""
    eval_interval: int = 250
    """Steps between evaluations, each followed by a checkpoint."""
    eval_tokens: int = 0
    """Evaluate only the first tokens of the validation split, this many targets, the same in every
    evaluation; 0 is the whole split."""
    keep_best: bool = True
    """Also keep the checkpoint with the lowest validation loss, as checkpoints/best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "batch_size", "gradient_accumulation_steps", "max_iters")
        require_positive(self, "eval_interval", "learning_rate", "muon_learning_rate", "vocab_size")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2**32)")
        for name in ("min_lr", "warmup_iters", "lr_decay_iters", "weight_decay", "grad_clip"):
            require(self, name, getattr(self, name) >= 0, "zero or more")
        require(self, "eval_tokens", self.eval_tokens >= 0, "zero or more")
        require(self, "threads", 0 <= self.threads <= MOST_THREADS, f"in [0, {MOST_THREADS}]")
        for name in ("beta1", "beta2", "muon_momentum"):
            require(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        highest = f"at most learning_rate = {self.learning_rate}"
        require(self, "min_lr", self.min_lr <= self.learning_rate, highest)
        in_numpy = self.dtype == "float32" or self.backend == "numpy"
        require(self, "dtype", in_numpy, "float32 with the numba backend")

    @property
    def sequences_per_step(self) -> int:
        """The sequences of all batches of a step."""
        return self.gradient_accumulation_steps * self.batch_size

    @property
    def tokens_per_step(self) -> int:
        """The tokens of all batches of a step."""
        return self.sequences_per_step * self.block_size

    def gpt(self, vocab_size: int) -> GPTConfig:
        """Return the configuration of the model, given the size of its vocabulary."""
        shape = {field.name: getattr(self, field.name) for field in fields(Architecture)}
        return GPTConfig(vocab_size=vocab_size, **shape)


# A test of the values of each type of field, and what they must be.
KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (lambda value: type(value) is int, "an integer"),
    float: (lambda value: is_number(value) and abs(value) <= sys.float_info.max, "a finite number"),
    str: (lambda value: isinstance(value, str), "a string"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
}


def is_number(value: Any) -> bool:
    """Return whether a value is a number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_types(config: Any) -> None:
    """Raise ValueError unless every field has a value of its type; floats must be finite."""
    for field in fields(config):
        value, kind = getattr(config, field.name), field.type
        if get_origin(kind) is Literal:
            choices = get_args(kind)
            require(config, field.name, value in choices, f"one of {', '.join(choices)}")
        elif kind in KINDS:
            fits, expected = KINDS[kind]
            require(config, field.name, fits(value), expected)


def require(config: Any, name: str, condition: bool, expected: str) -> None:
    """Raise ValueError, which names the field and what is expected, unless a condition holds."""
    if not condition:
        raise ValueError(f"{name} must be {expected}, not {getattr(config, name)!r}")


def require_positive(config: Any, *names: str) -> None:
    """Raise ValueError unless all these fields are positive."""
    for name in names:
        require(config, name, getattr(config, name) > 0, "positive")


Preset = Literal[
    "shakespeare", "shakespeare-long", "cpu", "lecture-small", "lecture", "smoke", "microgpt",
    "gpt2-124m", "finetune-shakespeare",
]  # fmt: skip
DEFAULT_PRESET: Preset = "shakespeare"
# shakespeare is the best recipe found for the time that cpu takes, shakespeare-long is one for a
# quarter of an hour; training/README.md says what was tried. cpu is nanoGPT's recipe for a CPU.
# lecture-small is the script published with the lecture, and lecture the larger run at its end;
# both have a constant learning rate and PyTorch's defaults for AdamW. gpt2-124m and
# finetune-shakespeare are nanoGPT's train_gpt2 and finetune_shakespeare; the latter starts from the
# smallest GPT-2, where nanoGPT uses the largest. microgpt is Karpathy's script of that name;
# training/README.md says what differs.
PRESETS: dict[str, TrainConfig] = {
    "shakespeare": TrainConfig(
        block_size=256, n_layer=3, n_head=2, n_embd=128, norm="rms_norm",
        positions="rotary_halves", qk_norm=True, activation="relu_squared", tied_head=False,
        init_std=0.05, embedding_std=0.5, data_order="epochs", batch_size=8, max_iters=870,
        optimizer="muon", muon_learning_rate=0.03, muon_momentum=0.85, learning_rate=1e-2,
        min_lr=0.0, lr_decay="linear", warmup_iters=10, lr_decay_iters=870, weight_decay=0.05,
        beta2=0.95, grad_clip=0.0, eval_interval=145,
    ),
    "shakespeare-long": TrainConfig(
        block_size=256, n_layer=6, n_head=4, n_embd=256, dropout=0.1, norm="rms_norm",
        positions="rotary_halves", qk_norm=True, activation="relu_squared", tied_head=False,
        init_std=0.05, embedding_std=0.5, batch_size=16, max_iters=2400, optimizer="muon",
        muon_learning_rate=0.02, muon_momentum=0.9, learning_rate=5e-3, min_lr=0.0,
        lr_decay="linear", warmup_iters=10, lr_decay_iters=2400, beta2=0.95, grad_clip=0.0,
        eval_interval=200,
    ),
    "cpu": TrainConfig(),
    "lecture-small": TrainConfig(
        block_size=32, n_layer=4, n_head=4, n_embd=64, bias=True,
        batch_size=16, max_iters=5000, learning_rate=1e-3, min_lr=1e-3,
        warmup_iters=0, lr_decay_iters=5000, weight_decay=0.01, beta2=0.999, grad_clip=0.0,
        eval_interval=500,
    ),
    "lecture": TrainConfig(
        block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2, bias=True,
        batch_size=64, max_iters=5000, learning_rate=3e-4, min_lr=3e-4,
        warmup_iters=0, lr_decay_iters=5000, weight_decay=0.01, beta2=0.999, grad_clip=0.0,
        eval_interval=500,
    ),
    "smoke": TrainConfig(
        block_size=16, n_layer=2, n_head=2, n_embd=32,
        batch_size=16, max_iters=600, learning_rate=1e-2, min_lr=1e-3,
        warmup_iters=10, lr_decay_iters=600, eval_interval=200,
    ),
    "microgpt": TrainConfig(
        data="words", block_size=16, n_layer=1, n_head=4, n_embd=16,
        norm="rms_norm", activation="relu", tied_head=False, init_std=0.08, embedding_std=0.08,
        batch_size=1, max_iters=1000, learning_rate=1e-2, min_lr=0.0, warmup_iters=0,
        lr_decay_iters=1000, lr_decay="linear", weight_decay=0.0, beta1=0.85, grad_clip=0.0,
        eval_interval=500, threads=1,
    ),
    "gpt2-124m": TrainConfig(
        tokenizer="gpt2", block_size=1024, n_layer=12, n_head=12, n_embd=768,
        batch_size=12, gradient_accumulation_steps=40, max_iters=600_000, learning_rate=6e-4,
        min_lr=6e-5, warmup_iters=2000, lr_decay_iters=600_000, beta2=0.95, eval_interval=1000,
    ),
    "finetune-shakespeare": TrainConfig(
        tokenizer="gpt2", init_from="gpt2", block_size=1024, n_layer=12, n_head=12, n_embd=768,
        bias=True, batch_size=1, gradient_accumulation_steps=32, max_iters=20, learning_rate=3e-5,
        min_lr=3e-5, warmup_iters=0, lr_decay_iters=20, beta2=0.95, eval_interval=5,
    ),
}  # fmt: skip


# The validation loss of a preset after training on a corpus, with seeds 1 to 5, or 1 to 3.
MEASURED: dict[tuple[str, str], tuple[float, ...]] = {
    ("shakespeare", "shakespeare"): (1.6264, 1.6386, 1.6350, 1.6418, 1.6554),
    ("shakespeare", "tinyshakespeare"): (1.5338, 1.5528, 1.5467, 1.5441, 1.5580),
    ("shakespeare-long", "tinyshakespeare"): (1.4317, 1.4223, 1.4191),
    ("cpu", "shakespeare"): (1.9089, 1.9189, 1.9140, 1.9050, 1.9145),
    ("cpu", "tinyshakespeare"): (1.9065, 1.9100, 1.8988, 1.9079, 1.9060),
    ("lecture-small", "shakespeare"): (1.9052, 1.8831, 1.8783, 1.8892, 1.8951),
    ("lecture-small", "tinyshakespeare"): (1.8424, 1.8457, 1.8642, 1.8485, 1.8631),
    ("microgpt", "words"): (2.5310, 2.5084, 2.4941, 2.4964, 2.5062),
    ("smoke", "shakespeare"): (2.5056, 2.3501, 2.5619, 2.3902, 2.4944),
    ("smoke", "tinyshakespeare"): (2.3850, 2.5480, 2.5442, 2.5142, 2.4777),
}
# Student's t for 95 %, by the number of measured runs.
STUDENT = {3: 4.303, 5: 2.776}


def expected_band(config: TrainConfig) -> tuple[float, float] | None:
    """Return the range in which the validation loss of one more run of a preset will be.

    It is the 95 % prediction interval of the measured runs. Return None if the configuration is not
    a preset, or was not measured on this corpus.
    """
    # The backend changes only rounding, and the measured runs differ in their seeds.
    free = ("seed", "backend", "threads", "matmul", "dtype", "keep_best", "reduction")
    same = {name: getattr(config, name) for name in free}
    for (preset, corpus), losses in MEASURED.items():
        if replace(PRESETS[preset], data=corpus, **same) == config:
            spread = statistics.stdev(losses) * (1 + 1 / len(losses)) ** 0.5
            margin = STUDENT[len(losses)] * spread
            return statistics.mean(losses) - margin, statistics.mean(losses) + margin
    return None


Purpose = Literal["init", "data", "dropout", "sampling", "gradcheck"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def generator(seed: int, purpose: Purpose, *number: int) -> np.random.Generator:
    """Return the random generator for one purpose, which is independent of all others.

    number: that of an epoch, from 1 on, for a generator of its own.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), not {seed}")
    return np.random.default_rng([seed, PURPOSES.index(purpose), *number])


def counted(count: int, thing: str) -> str:
    """Return a count with its noun, such as 1 layer, 2 layers or 1,000 layers."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
