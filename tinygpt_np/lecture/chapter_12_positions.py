"""01:00:18 Positional encoding

Attention sees a set of tokens without order, so the order must be in the tokens: the embedding of
its position is added to each token's embedding. It is learned here and in GPT-2, and made of sines
and cosines in "Attention Is All You Need" (3.5).
"""

from collections.abc import Callable

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.workbench import BLOCK_SIZE, N_EMBD, Shapes
from tinygpt_np.model.language_model import LanguageModel, Saved
from tinygpt_np.storage.parameters import Tensors

Result = tuple[np.ndarray, Saved]
Body = Callable[[Tensors, np.ndarray, int], Result]
BodyBackward = Callable[[np.ndarray, Saved], tuple[np.ndarray, Tensors]]


class Positioned(LanguageModel):
    """logits = body(wte[ids] + wpe[positions]) @ head + head_bias

    body: parameters, x (N, C), batch -> y (N, C), saved. It is the identity in this chapter; later
    chapters define their own. body_backward: dy (N, C), saved -> dx (N, C), gradients.
    """

    def __init__(self, shapes: Shapes, body: Body, body_backward: BodyBackward) -> None:
        C, V = N_EMBD, workbench.load_data()[0].vocab_size
        self.ops, self.vocab_size, self.block_size = ops, V, BLOCK_SIZE
        frame = {"wte": (V, C), "wpe": (BLOCK_SIZE, C), "head": (C, V), "head_bias": (V,)}
        self.params = workbench.initial(frame | shapes)
        self.body, self.body_backward = body, body_backward

    def forward(self, tokens: np.ndarray, masks: Tensors | None = None) -> Result:
        params, ids = self.params, tokens.reshape(-1)  # (N,)
        positions = np.arange(tokens.size) % tokens.shape[1]  # (N,)
        x = params["wte"][ids] + params["wpe"][positions]  # (N, C)
        y, body = self.body(params, x, len(tokens))  # (N, C)
        logits = y @ params["head"] + params["head_bias"]  # (N, V)
        return logits, (ids, positions, body, y)

    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        ids, positions, body, y = saved
        # logits = y @ head + head_bias
        dy = dlogits @ self.params["head"].T  # (N, C)
        dhead, dhead_bias = y.T @ dlogits, dlogits.sum(axis=0)  # (C, V), (V,)
        # y, body = self.body(params, x, len(tokens))
        dx, grads = self.body_backward(dy, body)  # (N, C)
        # x = wte[ids] + wpe[positions]
        dwte, dwpe = (np.zeros_like(self.params[name]) for name in ("wte", "wpe"))  # (V, C), (T, C)
        np.add.at(dwte, ids, dx)
        np.add.at(dwpe, positions, dx)
        return {"wte": dwte, "wpe": dwpe, "head": dhead, "head_bias": dhead_bias, **grads}


def main() -> None:
    rates = 10_000.0 ** (-np.arange(0, N_EMBD, 2) / N_EMBD)  # (C/2,)
    angles = np.arange(BLOCK_SIZE)[:, None] * rates  # (T, C/2)
    waves = np.dstack([np.sin(angles), np.cos(angles)]).reshape(BLOCK_SIZE, -1)  # (T, C)
    print("sinusoids: channels 0 and 1 turn fast, 8 and 9 slower, 30 and 31 hardly")
    for t in (0, 1, 2, 8, 15):
        print(f"  position {t:2}  " + " ".join(f"{waves[t, c]:6.3f}" for c in (0, 1, 8, 9, 30, 31)))
    model = Positioned({}, lambda params, x, batch: (x, ()), lambda dy, saved: (dy, {}))
    print("\nHow similar are two positions? The dot product of their rows, at distance 0 to 7:")
    wpe = model.params["wpe"]  # (T, C)
    for name, table, s in (("sines", waves, 0), ("sines", waves, 5), ("learned", wpe, 0)):
        row = " ".join(f"{value:6.2f}" for value in table[s : s + 8] @ table[s])
        print(f"  {name:<7}  from position {s}: {row}")
    print("Sines encode distance, the same at every position; a learned table must learn it.\n")
    workbench.check_gradient(model)
    workbench.train(model, "with learned positions")
    print("\nNo better than without: a position is of no use before a token can look at others.")


if __name__ == "__main__":
    main()
