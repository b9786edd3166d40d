"""00:58:26 Minor code cleanup: n_embd, and a linear head

The table no longer holds logits. A token becomes C numbers, and a linear layer turns C numbers into
V logits. Attention and feed-forward layers will go between the two.
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.model.language_model import LanguageModel, Saved
from tinygpt_np.storage.parameters import Tensors


class Factored(LanguageModel):
    """logits = wte[ids] @ head + head_bias"""

    def __init__(self, vocab_size: int, n_embd: int) -> None:
        self.ops, self.vocab_size, self.block_size = ops, vocab_size, workbench.BLOCK_SIZE
        shapes = {"wte": (vocab_size, n_embd), "head": (n_embd, vocab_size)}
        self.params = workbench.initial(shapes | {"head_bias": (vocab_size,)})

    def forward(self, tokens: np.ndarray, masks: Tensors | None = None) -> tuple[np.ndarray, Saved]:
        ids = tokens.reshape(-1)  # (N,)
        x = self.params["wte"][ids]  # (N, C)
        logits = x @ self.params["head"] + self.params["head_bias"]  # (N, V)
        return logits, (ids, x)

    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        ids, x = saved
        # logits = x @ head + head_bias
        dx = dlogits @ self.params["head"].T  # (N, C)
        dhead, dhead_bias = x.T @ dlogits, dlogits.sum(axis=0)  # (C, V), (V,)
        # x = wte[ids]
        dwte = np.zeros_like(self.params["wte"])  # (V, C)
        np.add.at(dwte, ids, dx)
        return {"wte": dwte, "head": dhead, "head_bias": dhead_bias}


def main() -> None:
    V, C = workbench.load_data()[0].vocab_size, workbench.N_EMBD
    model = Factored(V, C)
    workbench.check_gradient(model)
    workbench.train(model, "factored bigram")
    print("\nStill a bigram model, so it ends near 2.5. Its table is wte @ head, (V, C) by (C, V),")
    print(f"of rank {C}: {V * C:,} + {C * V:,} numbers for the {V * V:,} of the full table.")
    print("The gain is not a lower loss, but the place between the two, where blocks will go.")


if __name__ == "__main__":
    main()
