"""00:58:26 Minor code cleanup: n_embd, and a linear head

What changes if a token no longer looks up its logits, but C numbers that describe it? A linear
layer, the head, turns these C numbers into V logits. Does the loss become lower? And if it does
not, what is it good for?
"""

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.model.language_model import LanguageModel, Saved
from tinygpt_np.storage.parameters import Tensors

Result = tuple[np.ndarray, Saved]
Masks = Tensors | None


class Factored(LanguageModel):
    """logits = wte[ids] @ head + head_bias"""

    def __init__(self, vocab_size: int, n_embd: int) -> None:
        self.ops, self.vocab_size = ops, vocab_size
        self.block_size = workbench.BLOCK_SIZE
        shapes = {"wte": (vocab_size, n_embd), "head": (n_embd, vocab_size)}
        shapes |= {"head_bias": (vocab_size,)}
        self.params = workbench.initial(shapes)

    def forward(self, tokens: np.ndarray, masks: Masks = None) -> Result:
        params, ids = self.params, tokens.reshape(-1)  # (N,)
        x = params["wte"][ids]  # (N, C)
        logits = x @ params["head"] + params["head_bias"]  # (N, V)
        return logits, (ids, x)

    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        ids, x = saved
        # logits = x @ head + head_bias
        dx = dlogits @ self.params["head"].T  # (N, C)
        dhead = x.T @ dlogits  # (C, V)
        dhead_bias = dlogits.sum(axis=0)  # (V,)
        # x = wte[ids]
        dwte = np.zeros_like(self.params["wte"])  # (V, C)
        np.add.at(dwte, ids, dx)
        return {"wte": dwte, "head": dhead, "head_bias": dhead_bias}


def main() -> None:
    # %% C numbers for each token, and a head
    # The gradient has one more step than in chapter 5: it passes through head.T before it is
    # added up in the table. The complex step gives derivatives that are exact to rounding, so
    # an error near 1e-15 is expected; a wrong line would give one of order 1.

    tokenizer, train, val = workbench.load_data()
    V, C = tokenizer.vocab_size, workbench.N_EMBD
    model = Factored(V, C)
    workbench.check_gradient(model)

    # %% Before training
    # Chapter 4 has shown what random logits cost: ln V for a uniform guess, plus half of
    # their variance s². There s² was 1. Here a logit is a sum of C products of two small
    # numbers, so s² is C times the product of their variances.

    params = model.params
    s2 = C * params["wte"].var() * params["head"].var()  # ()
    expected = np.log(V) + s2 / 2
    measured = workbench.split_loss(model, val)
    print(f"expected: ln {V} + s² / 2 = {np.log(V):.3f} + {s2 / 2:.3f} = {expected:.3f}")
    print(f"measured: {measured:.3f}")
    print("With small initial weights, training does not have to unlearn anything first.")

    # %% Training
    # Between two linear steps there is nothing, so wte @ head is again a table of logits,
    # (V, C) by (C, V). It sees one token, as before, and its rank is at most C. So it cannot
    # do better than the best full table, which chapter 5 has found by counting pairs.

    counts = np.ones((V, V))  # (V, V)
    np.add.at(counts, (train[:-1], train[1:]), 1)
    guess = counts / counts.sum(axis=-1, keepdims=True)  # (V, V)
    counted = -np.log(guess[val[:-1], val[1:]]).mean()  # ()
    print(f"expected: not much below {counted:.3f}, the loss of counting pairs")
    workbench.train(model, "factored bigram")
    print("\nStill a bigram model, so it ends near the counts. Its table is of rank")
    print(f"{C}: {V * C:,} + {C * V:,} numbers for the {V * V:,} of the full table.")
    print("The gain is not a lower loss, but the place between the two, where blocks")
    print("will go.")

    # %% Try it
    # How many numbers does a token need? Here, C = V would be enough for any table. In a GPT,
    # the same C numbers also carry all that its blocks add about the context.

    workbench.try_it(
        "tinygpt train --n-embd 16 --max-iters 200",
        "Compare the validation loss with that of --n-embd 64 and of 128, the preset's. Does each "
        "doubling of C gain as much as the one before?",
    )


if __name__ == "__main__":
    main()
