"""Decoding with a cache of keys and values: each new token is one row through the model.

The keys and values of a token depend on the token, its position and the tokens before it. While a
sequence only grows, they do not change, so they are cached, and the query of a new token attends to
all cached keys.

Past block_size the cache is invalid. Every position shifts with each new token; rotary positions do
not depend on that, because scores depend on distances only, but from the second block on all keys
and values depend, through attention, on the token that has left the context. So the last block_size
tokens are computed again. Even so, only the last row needs logits, and the other rows need only
keys and values in the last block.
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3, for the cache;
nanoGPT's `generate` for the last block_size tokens.
"""

import functools
from types import ModuleType

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.ops.contract import unguarded
from tinygpt_np.storage.parameters import Tensors


class Decoder:
    """The state of decoding a batch of sequences of equal length.

    Letters besides those of ops/: M block_size; E columns of c_attn, W of them keys; U columns of
    c_fc, F after the activation.
    context (B, T): the last T ≤ M tokens. cache (n_layer, 2, B, J, M, D): their keys [:, 0], as
    attention uses them, and values [:, 1]. The parameters must not change between two reads.
    """

    def __init__(self, config: GPTConfig, params: Tensors, ops: ModuleType, batch: int) -> None:
        self.config, self.params, dtype = config, params, params["wte.weight"].dtype
        heads = (batch, config.kv_heads, config.block_size, config.head_size)
        # Tokens are checked by the caller; a step is short, and checks would be a third of it.
        self.ops = unguarded(ops)
        self.activation = getattr(self.ops, config.activation)
        self.norm = functools.partial(
            getattr(self.ops, config.norm).forward, epsilon=config.norm_epsilon
        )
        self.context = np.empty((batch, 0), np.int64)
        self.cache = np.empty((config.n_layer, 2, *heads), dtype)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (B, T) integers, the next of each sequence -> logits (B, V) of the token after."""
        cached, block_size = self.context.shape[1], self.config.block_size
        self.context = np.concatenate([self.context, tokens], axis=1)[:, -block_size:]
        grows_by_one = cached < block_size and tokens.shape[1] == 1
        return self.forward(cached if grows_by_one else 0)

    def forward(self, start: int) -> np.ndarray:
        """Compute the context from position `start` on -> logits (B, V) of the next token.

        start is 0, or the position of the last token.
        """
        config, ops, params = self.config, self.ops, self.params
        batch, end = self.context.shape
        ids = self.context[:, start:].reshape(-1)  # (N,)
        x, _ = ops.embedding.forward(ids, params["wte.weight"])  # (N, C)
        if config.positions == "learned":
            positions = np.tile(np.arange(start, end, dtype=np.int64), batch)  # (N,)
            position_rows, _ = ops.embedding.forward(positions, params["wpe.weight"])  # (N, C)
            x = x + position_rows  # (N, C)
        for layer in range(config.n_layer):
            x = self.block(x, layer)  # (..., C)
        normed, _ = self.norm(x, *self.affine("ln_f"))  # (B, C)
        logits, _ = ops.linear.forward(normed, params[config.head_name].T)  # (B, V)
        if config.logit_soft_cap:
            logits, _ = ops.soft_cap.forward(logits, config.logit_soft_cap)  # (B, V)
        return logits

    def block(self, x: np.ndarray, layer: int) -> np.ndarray:
        """x (N, C), the last rows of each sequence -> y (N, C); caches their keys and values.

        The last layer returns only the last row of each sequence, (B, C).
        """
        config, ops, h = self.config, self.ops, f"h.{layer}"
        batch, channels = len(self.context), x.shape[1]
        normed_1, _ = self.norm(x, *self.affine(f"{h}.ln_1"))  # (N, C)
        if layer < config.n_layer - 1:
            qkv, _ = ops.linear.forward(normed_1, *self.affine(f"{h}.attn.c_attn"))  # (N, E)
            qkv = self.turn(qkv, config.qk_width)  # (N, E)
            self.store(qkv[:, channels:], layer)
            if len(x) == batch:
                heads = self.attend(qkv[:, :channels], layer)  # (B, C)
            else:
                counts = batch, config.n_head, None, config.kv_heads
                heads, _ = ops.attention.forward(qkv, *counts)  # (N, C)
        else:
            c_attn = self.affine(f"{h}.attn.c_attn")
            kv, _ = ops.linear.forward(normed_1, *(p[..., channels:] for p in c_attn))  # (N, 2W)
            self.store(self.turn(kv, config.qk_width - channels), layer)
            time = len(x) // batch
            x, last_normed = x[time - 1 :: time], normed_1[time - 1 :: time]  # (B, C)
            q, _ = ops.linear.forward(last_normed, *(p[..., :channels] for p in c_attn))  # (B, C)
            heads = self.attend(self.turn(q, channels), layer)  # (B, C)
        out_1, _ = ops.linear.forward(heads, *self.affine(f"{h}.attn.c_proj"))  # (..., C)
        mid = x + out_1  # (..., C)
        normed_2, _ = self.norm(mid, *self.affine(f"{h}.ln_2"))  # (..., C)
        hidden, _ = ops.linear.forward(normed_2, *self.affine(f"{h}.mlp.c_fc"))  # (..., U)
        activated, _ = self.activation.forward(hidden)  # (..., F)
        out_2, _ = ops.linear.forward(activated, *self.affine(f"{h}.mlp.c_proj"))  # (..., C)
        y = mid + out_2  # (..., C)
        return y

    def affine(self, name: str) -> list[np.ndarray]:
        """Return the weight of a layer, and its bias if it has one."""
        names = (f"{name}.weight", f"{name}.bias")
        return [self.params[each] for each in names if each in self.params]

    def turn(self, x: np.ndarray, width: int) -> np.ndarray:
        """x (N, ·), of the last positions -> the same, with its queries and keys as configured.

        These are the first `width` columns; they are normalized and rotated head by head.
        """
        config, ops = self.config, self.ops
        if not config.qk_norm and config.positions == "learned":
            return x
        heads = x[:, :width].reshape(len(x), -1, config.head_size)  # (..., D)
        if config.qk_norm:
            heads, _ = ops.rms_norm.forward(heads, None, config.norm_epsilon)  # (..., D)
        if config.positions != "learned":
            batch, end = self.context.shape
            positions = np.tile(np.arange(end - len(x) // batch, end), batch)  # (...)
            theta, pairs = config.rope_theta, config.positions == "rotary_pairs"
            heads, _ = ops.rotary.forward(heads, positions, theta, pairs)  # (..., D)
        return np.concatenate([heads.reshape(len(x), width), x[:, width:]], axis=1)

    def store(self, kv: np.ndarray, layer: int) -> None:
        """Store kv (N, 2JD), the keys and values of the last positions, in the cache."""
        _, _, batch, kv_heads, _, head_size = self.cache.shape
        end = self.context.shape[1]
        start = end - len(kv) // batch
        parts = (batch, end - start, 2, kv_heads, head_size)
        self.cache[layer, :, :, :, start:end] = kv.reshape(parts).transpose(2, 0, 3, 1, 4)

    def attend(self, q: np.ndarray, layer: int) -> np.ndarray:
        """q (B, C), the queries of the last position -> heads (B, C): attention to the cache.

        As ops/attention.py for one query per head, which needs no causal mask. Letter G: the heads
        of a group of queries, which share keys and values.
        """
        _, _, batch, kv_heads, _, head_size = self.cache.shape
        keys, values = self.cache[layer, ..., : self.context.shape[1], :]  # (B, J, T, D)
        queries = q.reshape(batch, kv_heads, -1, head_size)  # (B, J, G, D)
        products = queries @ keys.mT  # (B, J, G, T)
        scores = products * head_size**-0.5  # (B, J, G, T)
        probs, _ = self.ops.softmax.forward(scores)  # (B, J, G, T)
        heads = probs @ values  # (B, J, G, D)
        return heads.reshape(q.shape)
