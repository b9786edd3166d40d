"""Decoding with a cache of keys and values: each new token is one row through the model.

The keys and values of a token depend on the token, its position and the tokens before it. While a
sequence only grows, they do not change, so they are cached, and the query of a new token attends to
all cached keys.

Past block_size the cache is invalid, because every position shifts with each new token. The last
block_size tokens are then computed again. Even so, only the last row needs logits, and the other
rows need only keys and values in the last block.
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3, for the cache;
nanoGPT's `generate` for the last block_size tokens.
"""

from types import ModuleType

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.ops.contract import unguarded
from tinygpt_np.storage.parameters import Tensors


class Decoder:
    """The state of decoding a batch of sequences of equal length. Letter M: block_size.

    context (B, T): the last T ≤ M tokens. cache (n_layer, 2, B, H, M, D): their keys [:, 0] and
    values [:, 1]. The parameters must not change between two reads.
    """

    def __init__(self, config: GPTConfig, params: Tensors, ops: ModuleType, batch: int) -> None:
        self.config, self.params, dtype = config, params, params["wte.weight"].dtype
        heads = (batch, config.n_head, config.block_size, config.n_embd // config.n_head)
        # Tokens are checked by the caller; a step is short, and checks would be a third of it.
        self.ops = unguarded(ops)
        self.activation = getattr(self.ops, config.activation)
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
        ops, params = self.ops, self.params
        batch, end = self.context.shape
        ids = self.context[:, start:].reshape(-1)  # (N,)
        positions = np.tile(np.arange(start, end, dtype=np.int64), batch)  # (N,)
        token_rows, _ = ops.embedding.forward(ids, params["wte.weight"])  # (N, C)
        position_rows, _ = ops.embedding.forward(positions, params["wpe.weight"])  # (N, C)
        x = token_rows + position_rows  # (N, C)
        for layer in range(self.config.n_layer):
            x = self.block(x, layer)  # (..., C)
        normed, _ = ops.layer_norm.forward(x, *self.affine("ln_f"))  # (B, C)
        logits, _ = ops.linear.forward(normed, params["wte.weight"].T)  # (B, V)
        return logits

    def block(self, x: np.ndarray, layer: int) -> np.ndarray:
        """x (N, C), the last rows of each sequence -> y (N, C); caches their keys and values.

        The last layer returns only the last row of each sequence, (B, C).
        """
        ops, h = self.ops, f"h.{layer}"
        batch, channels = len(self.context), x.shape[1]
        normed_1, _ = ops.layer_norm.forward(x, *self.affine(f"{h}.ln_1"))  # (N, C)
        if layer < self.config.n_layer - 1:
            qkv, _ = ops.linear.forward(normed_1, *self.affine(f"{h}.attn.c_attn"))  # (N, 3C)
            self.store(qkv[:, channels:], layer)
            if len(x) == batch:
                heads = self.attend(qkv[:, :channels], layer)  # (B, C)
            else:
                heads, _ = ops.attention.forward(qkv, batch, self.config.n_head)  # (N, C)
        else:
            weight, bias = self.affine(f"{h}.attn.c_attn")  # (C, 3C), (3C,)
            q_bias = None if bias is None else bias[:channels]  # (C,)
            kv_bias = None if bias is None else bias[channels:]  # (2C,)
            kv, _ = ops.linear.forward(normed_1, weight[:, channels:], kv_bias)  # (N, 2C)
            self.store(kv, layer)
            time = len(x) // batch
            x, last_normed = x[time - 1 :: time], normed_1[time - 1 :: time]  # (B, C)
            q, _ = ops.linear.forward(last_normed, weight[:, :channels], q_bias)  # (B, C)
            heads = self.attend(q, layer)  # (B, C)
        out_1, _ = ops.linear.forward(heads, *self.affine(f"{h}.attn.c_proj"))  # (..., C)
        mid = x + out_1  # (..., C)
        normed_2, _ = ops.layer_norm.forward(mid, *self.affine(f"{h}.ln_2"))  # (..., C)
        hidden, _ = ops.linear.forward(normed_2, *self.affine(f"{h}.mlp.c_fc"))  # (..., 4C)
        activated, _ = self.activation.forward(hidden)  # (..., 4C)
        out_2, _ = ops.linear.forward(activated, *self.affine(f"{h}.mlp.c_proj"))  # (..., C)
        y = mid + out_2  # (..., C)
        return y

    def affine(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the weight and the bias (or None) of a layer."""
        return self.params[f"{name}.weight"], self.params.get(f"{name}.bias")

    def store(self, kv: np.ndarray, layer: int) -> None:
        """Store kv (N, 2C), the keys and values of the last positions, in the cache."""
        _, _, batch, n_head, _, head_size = self.cache.shape
        end = self.context.shape[1]
        start = end - len(kv) // batch
        parts = (batch, end - start, 2, n_head, head_size)
        self.cache[layer, :, :, :, start:end] = kv.reshape(parts).transpose(2, 0, 3, 1, 4)

    def attend(self, q: np.ndarray, layer: int) -> np.ndarray:
        """q (B, C), the queries of the last position -> heads (B, C): attention to the cache.

        As ops/attention.py for one query per head, which needs no causal mask.
        """
        _, _, batch, n_head, _, head_size = self.cache.shape
        keys, values = self.cache[layer, ..., : self.context.shape[1], :]  # (B, H, T, D)
        queries = q.reshape(batch, n_head, 1, head_size)  # (B, H, 1, D)
        products = queries @ keys.mT  # (B, H, 1, T)
        scores = products * head_size**-0.5  # (B, H, 1, T)
        probs, _ = self.ops.softmax.forward(scores)  # (B, H, 1, T)
        heads = probs @ values  # (B, H, 1, D)
        return heads.reshape(batch, n_head * head_size)
