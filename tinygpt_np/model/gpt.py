"""The GPT: its forward, and its backward in exact reverse order.

Every token is a row: x is (N, C) with N = B·T, so a linear layer is one matrix product. Only
attention and rotary positions need to know which rows belong to the same sequence. Parameters have
the names and the (in, out) layout of GPT-2's checkpoints. The defaults of the configuration are
GPT-2's architecture; its fields select the parts of newer models, such as Llama's.

Letters besides those of ops/: E = G + M columns of c_attn, G of queries and keys, in A heads, and M
of values; U columns of c_fc, F after the activation.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import GPTConfig, generator
from tinygpt_np.model.decoder import Decoder
from tinygpt_np.model.language_model import LanguageModel, Saved, float_dtype
from tinygpt_np.storage import checkpoint, hugging_face
from tinygpt_np.storage.parameters import Tensors, mask_shapes, param_shapes
from tinygpt_np.text.tokenizers import Tokenizer

# The layers of a block, in the order of its forward and of its saved values.
BLOCK_LAYERS = (
    *("ln_1", "attn.c_attn", "attn.heads", "attn", "attn.c_proj", "attn.dropout"),
    *("ln_2", "mlp.c_fc", "mlp.activation", "mlp.c_proj", "mlp.dropout"),
)


class GPT(LanguageModel):
    """A GPT; the configuration's defaults are the architecture of GPT-2.

    Parameters
    ----------
    config : GPTConfig
        The architecture.
    seed : int
        Seed of the initial weights.
    dtype : {"float32", "float64"}
        The dtype of the parameters.
    backend : {"numpy", "numba"}
        The operations: NumPy's, or the compiled ones, which are float32 only.
    params : dict of ndarray, optional
        All parameters by name, used without a copy instead of initial weights.
    """

    def __init__(
        self,
        config: GPTConfig,
        seed: int = 1337,
        dtype: str = "float32",
        backend: str = "numpy",
        params: Tensors | None = None,
    ) -> None:
        self.config = config
        self.vocab_size, self.block_size = config.vocab_size, config.block_size
        if backend == "numba" and dtype != "float32":
            raise ValueError(f"the numba backend computes in float32 only, not in {dtype}")
        self.ops = backends.load(backend)
        initial = float_dtype(dtype)
        self.params = initial_params(config, seed, initial) if params is None else params

    def forward(self, tokens: np.ndarray, masks: Tensors | None = None) -> tuple[np.ndarray, Saved]:
        """tokens (B, T), dropout masks or None for no dropout -> logits (N, V), saved."""
        config, ops, params, masks = self.config, self.ops, self.params, masks or {}
        batch, time = tokens.shape
        ids, table = tokens.reshape(-1), params["wte.weight"]  # (N,), (V, C)
        token_rows, wte = ops.embedding.forward(ids, table)  # (N, C)
        embedded, wpe = token_rows, None  # (N, C)
        if config.positions == "learned":
            positions = np.tile(np.arange(time, dtype=np.int64), batch)  # (N,)
            position_rows, wpe = ops.embedding.forward(positions, params["wpe.weight"])  # (N, C)
            embedded = token_rows + position_rows  # (N, C)
        x, drop = ops.dropout.forward(embedded, masks.get("drop"))  # (N, C)
        blocks: list[Saved] = []
        for layer in range(config.n_layer):
            x, block = self.block_forward(x, f"h.{layer}", batch, masks)  # (N, C)
            blocks.append(block)
        normed, ln_f = self.norm.forward(x, *self.affine("ln_f"))  # (N, C)
        head_weight = params[config.head_name].T  # (C, V)
        logits, head = ops.linear.forward(normed, head_weight)  # (N, V)
        capped, cap = logits, None  # (N, V)
        if config.logit_soft_cap:
            capped, cap = ops.soft_cap.forward(logits, config.logit_soft_cap)  # (N, V)
        return capped, (wte, wpe, drop, blocks, ln_f, head, cap)

    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        """dlogits (N, V), after the soft cap -> the gradient of every parameter, by name."""
        config, ops, grads = self.config, self.ops, Gradients()
        wte, wpe, drop, blocks, ln_f, head, cap = saved
        dcapped = dlogits  # (N, V)
        if cap is not None:
            dlogits = ops.soft_cap.backward(dcapped, cap)  # (N, V)
        dnormed, dhead_weight, _ = ops.linear.backward(dlogits, head)  # (N, C), (C, V)
        dx = grads.keep("ln_f", self.norm.backward(dnormed, ln_f))  # (N, C)
        for layer in reversed(range(config.n_layer)):
            dx = self.block_backward(dx, f"h.{layer}", blocks[layer], grads)  # (N, C)
        dembedded = ops.dropout.backward(dx, drop)  # (N, C)
        dtoken_rows = dembedded  # (N, C)
        if wpe is not None:
            # embedded = token_rows + position_rows
            dposition_rows = dembedded  # (N, C)
            # T is block_size here; positions beyond the batch get zero.
            grads["wpe.weight"] = ops.embedding.backward(dposition_rows, wpe)  # (T, C)
        dtable = ops.embedding.backward(dtoken_rows, wte)  # (V, C)
        if config.tied_head:
            # The table is used for the embedding and for the head; the two gradients add.
            grads["wte.weight"] = dtable + dhead_weight.T  # (V, C)
        else:
            grads["wte.weight"], grads["lm_head.weight"] = dtable, dhead_weight.T  # (V, C)
        return {name: grads[name] for name in self.params}

    def block_forward(
        self, x: np.ndarray, h: str, batch: int, masks: Tensors
    ) -> tuple[np.ndarray, Saved]:
        """x (N, C) -> y (N, C): attention (1), then feed-forward (2).

        Each branch reads a normalized copy of its input and is added to it. h: "h.0", "h.1", …
        """
        ops, n_head = self.ops, self.config.n_head
        normed_1, ln_1 = self.norm.forward(x, *self.affine(f"{h}.ln_1"))  # (N, C)
        qkv, c_attn = ops.linear.forward(normed_1, *self.affine(f"{h}.attn.c_attn"))  # (N, E)
        turned, heads = self.heads_forward(qkv, batch)  # (N, E)
        mask, kv_heads = masks.get(f"{h}.attn"), self.config.kv_heads  # (B, H, T, T)
        mixed, attn = ops.attention.forward(turned, batch, n_head, mask, kv_heads)  # (N, C)
        out_1, proj_1 = ops.linear.forward(mixed, *self.affine(f"{h}.attn.c_proj"))  # (N, C)
        kept_1, drop_1 = ops.dropout.forward(out_1, masks.get(f"{h}.attn.c_proj"))  # (N, C)
        mid = x + kept_1  # (N, C)
        normed_2, ln_2 = self.norm.forward(mid, *self.affine(f"{h}.ln_2"))  # (N, C)
        hidden, c_fc = ops.linear.forward(normed_2, *self.affine(f"{h}.mlp.c_fc"))  # (N, U)
        activated, activation = self.activation.forward(hidden)  # (N, F)
        out_2, proj_2 = ops.linear.forward(activated, *self.affine(f"{h}.mlp.c_proj"))  # (N, C)
        kept_2, drop_2 = ops.dropout.forward(out_2, masks.get(f"{h}.mlp.c_proj"))  # (N, C)
        y = mid + kept_2  # (N, C)
        saved_1 = ln_1, c_attn, heads, attn, proj_1, drop_1
        return y, (*saved_1, ln_2, c_fc, activation, proj_2, drop_2)

    def block_backward(
        self, dy: np.ndarray, h: str, saved: Saved, grads: "Gradients"
    ) -> np.ndarray:
        """dy (N, C) -> dx (N, C); stores the gradients of the block's parameters in grads."""
        ops = self.ops
        ln_1, c_attn, heads, attn, proj_1, drop_1, ln_2, c_fc, activation, proj_2, drop_2 = saved
        # y = mid + kept_2: a sum passes its gradient to both terms.
        dmid, dkept_2 = dy, dy  # (N, C)
        dout_2 = ops.dropout.backward(dkept_2, drop_2)  # (N, C)
        dactivated = grads.keep(f"{h}.mlp.c_proj", ops.linear.backward(dout_2, proj_2))  # (N, F)
        dhidden = self.activation.backward(dactivated, activation)  # (N, U)
        dnormed_2 = grads.keep(f"{h}.mlp.c_fc", ops.linear.backward(dhidden, c_fc))  # (N, C)
        dmid = dmid + grads.keep(f"{h}.ln_2", self.norm.backward(dnormed_2, ln_2))  # (N, C)
        # mid = x + kept_1
        dx, dkept_1 = dmid, dmid  # (N, C)
        dout_1 = ops.dropout.backward(dkept_1, drop_1)  # (N, C)
        dmixed = grads.keep(f"{h}.attn.c_proj", ops.linear.backward(dout_1, proj_1))  # (N, C)
        dturned = ops.attention.backward(dmixed, attn)  # (N, E)
        dqkv = self.heads_backward(dturned, heads)  # (N, E)
        dnormed_1 = grads.keep(f"{h}.attn.c_attn", ops.linear.backward(dqkv, c_attn))  # (N, C)
        dx = dx + grads.keep(f"{h}.ln_1", self.norm.backward(dnormed_1, ln_1))  # (N, C)
        return dx

    def heads_forward(self, qkv: np.ndarray, batch: int) -> tuple[np.ndarray, Saved]:
        """qkv (N, E) -> y (N, E): queries and keys normalized and rotated, if configured."""
        config, ops = self.config, self.ops
        if not config.qk_norm and config.positions == "learned":
            return qkv, (None, None)
        qk_rows, v_rows = np.split(qkv, [config.qk_width], axis=-1)  # (N, G), (N, M)
        qk, qk_norm, rotary = split_heads(qk_rows, config.head_size), None, None  # (N, A, D)
        if config.qk_norm:
            qk, qk_norm = ops.rms_norm.forward(qk, None, config.norm_epsilon)  # (N, A, D)
        if config.positions != "learned":
            positions = np.tile(np.arange(len(qkv) // batch), batch)  # (N,)
            theta, pairs = config.rope_theta, config.positions == "rotary_pairs"
            qk, rotary = ops.rotary.forward(qk, positions, theta, pairs)  # (N, A, D)
        y = np.concatenate([merge_heads(qk), v_rows], axis=-1)  # (N, E)
        return y, (qk_norm, rotary)

    def heads_backward(self, dy: np.ndarray, saved: Saved) -> np.ndarray:
        """dy (N, E) -> dqkv (N, E)."""
        config, ops = self.config, self.ops
        qk_norm, rotary = saved
        if qk_norm is None and rotary is None:
            return dy
        # y = np.concatenate([merge_heads(qk), v_rows], axis=-1)
        dqk_rows, dv_rows = np.split(dy, [config.qk_width], axis=-1)  # (N, G), (N, M)
        dqk = split_heads(dqk_rows, config.head_size)  # (N, A, D)
        if rotary is not None:
            dqk = ops.rotary.backward(dqk, rotary)  # (N, A, D)
        if qk_norm is not None:
            dqk, _ = ops.rms_norm.backward(dqk, qk_norm)  # (N, A, D)
        # qk_rows, v_rows = np.split(qkv, [config.qk_width], axis=-1)
        dqkv = np.concatenate([merge_heads(dqk), dv_rows], axis=-1)  # (N, E)
        return dqkv

    @property
    def norm(self) -> Any:
        """The normalization that the configuration selects, with its epsilon."""
        operation = getattr(self.ops, self.config.norm)
        forward = functools.partial(operation.forward, epsilon=self.config.norm_epsilon)
        return SimpleNamespace(forward=forward, backward=operation.backward)

    @property
    def activation(self) -> Any:
        """The operation that the configuration selects."""
        return getattr(self.ops, self.config.activation)

    def affine(self, name: str) -> list[np.ndarray]:
        """Return the weight of a layer, and its bias if it has one."""
        names = (f"{name}.weight", f"{name}.bias")
        return [self.params[each] for each in names if each in self.params]

    def decoder(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function: the next tokens (B, T) -> logits (B, V) after the last of them."""
        if backends.name_of(self.ops) == "numba":
            return backends.decoder(self.config, self.params, batch)
        return Decoder(self.config, self.params, self.ops, batch).read

    def first_not_finite(self, tokens: np.ndarray, masks: Tensors, grads: Tensors) -> str:
        """Describe the first tensor in order of computation that is not finite, or return ""."""
        for name, param in self.params.items():
            if not np.isfinite(param).all():
                return f"the parameter {name}"
        logits, (_, _, _, blocks, ln_f, head, _) = self.forward(tokens, masks)
        places = [
            (f"an activation of h.{layer}.{name}", saved)
            for layer, block in enumerate(blocks)
            for name, saved in zip(BLOCK_LAYERS, block, strict=True)
        ]
        places += [("an activation of ln_f", ln_f), ("an activation of the head", head)]
        places += [("the logits", (logits,))]
        places += [(f"the gradient of {name}", (grads[name],)) for name in reversed(list(grads))]
        return next((place for place, saved in places if not all_finite(saved)), "")

    def draw_masks(self, batch: int, time: int, rng: np.random.Generator) -> Tensors:
        """Draw dropout masks for the embeddings, the attention and the output of each branch."""
        config, dtype = self.config, self.params["wte.weight"].dtype
        if config.dropout == 0:
            return {}
        shapes = mask_shapes(config, batch, time)
        draw = self.ops.dropout.draw_mask
        return {name: draw(shape, config.dropout, rng, dtype) for name, shape in shapes.items()}

    def save(self, path: str | Path) -> None:
        """Write config.json and model.safetensors to a new folder `path`."""
        checkpoint.save_model(Path(path), self.config, self.params)

    @classmethod
    def load(cls, path: str | Path, backend: str = "numpy") -> "GPT":
        """Return the model in a folder of `save` or in a checkpoint; tinygpt_np.load takes runs."""
        config, params = hugging_face.load_saved(Path(path))
        dtype = params["wte.weight"].dtype.name
        return cls(config, dtype=dtype, backend=backend, params=params)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, backend: str = "numpy", dtype: str = "float32"
    ) -> "GPT":
        """Load a GPT-2 or Llama from a Hugging Face folder, or a GPT-2 by name (gpt2-medium, …).

        The weights are memory-mapped; see storage/hugging_face.py. Dropout is 0. Raises
        checkpoint.CheckpointError, which says what was expected and what was found.
        """
        config, params = hugging_face.load(hugging_face.fetch(name), float_dtype(dtype).name)
        return cls(config, dtype=dtype, backend=backend, params=params)

    def save_pretrained(self, path: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write a new folder `path` that transformers loads as a GPT-2 or a Llama.

        tokenizer: its files are written too. Raises checkpoint.CheckpointError, which names the
        fields that neither has.
        """
        files = tokenizer.files_for_transformers() if tokenizer else {}
        hugging_face.save(Path(path), self.config, self.params, files)

    def cropped(self, block_size: int) -> "GPT":
        """Return the same model with a smaller block_size: only the first positions are kept.

        The parameters are shared. Raises ValueError if block_size is larger than it is now.
        """
        if not 1 <= block_size <= self.block_size:
            raise ValueError(f"block_size must be in [1, {self.block_size}], not {block_size}")
        model = copy.copy(self)
        model.config, model.block_size = replace(self.config, block_size=block_size), block_size
        model.params = dict(self.params)
        if self.config.positions == "learned":
            model.params["wpe.weight"] = self.params["wpe.weight"][:block_size]
        return model


class Gradients(Tensors):
    """The gradients computed so far, by parameter name."""

    def keep(
        self, name: str, gradients: tuple[np.ndarray, np.ndarray, *tuple[np.ndarray | None, ...]]
    ) -> np.ndarray:
        """Store dweight and, if it has one, dbias of the layer called `name`; return its dx."""
        dx, dweight, *rest = gradients
        self[f"{name}.weight"] = dweight
        for dbias in rest:
            if dbias is not None:
                self[f"{name}.bias"] = dbias
        return dx


def split_heads(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows (N, G) -> heads (N, A, D) of `size` D channels."""
    return rows.reshape(len(rows), -1, size)


def merge_heads(heads: np.ndarray) -> np.ndarray:
    """Heads (N, A, D) -> rows (N, G); the inverse of split_heads."""
    return heads.reshape(len(heads), -1)


def all_finite(saved: Any) -> bool:
    """Return whether every array among saved values is finite."""
    if isinstance(saved, tuple):
        return all(all_finite(part) for part in cast(Saved, saved))
    return not isinstance(saved, np.ndarray) or bool(np.isfinite(cast(np.ndarray, saved)).all())


def initial_params(config: GPTConfig, seed: int, dtype: np.dtype[Any]) -> Tensors:
    """Return GPT-2's initialisation: weights N(0, init_std²), biases 0, scales of norms 1.

    Token embeddings are N(0, embedding_std²).

    x is a sum of 2·n_layer branches; the last matrix of each branch is scaled by 1/√(2·n_layer), so
    that the size of x does not depend on the depth. An untied head is 0: all tokens are equally
    likely at first.
    """
    rng = generator(seed, "init")
    params: Tensors = {}
    for name, shape in param_shapes(config).items():
        if name.endswith(".bias") or name == "lm_head.weight":
            params[name] = np.zeros(shape, dtype)
        elif ".ln_" in f".{name}":
            params[name] = np.ones(shape, dtype)
        else:
            std = config.embedding_std if name == "wte.weight" else config.init_std
            depth = 2 * config.n_layer if name.endswith("c_proj.weight") else 1
            params[name] = (rng.standard_normal(shape) * std / depth**0.5).astype(dtype)
    return params
