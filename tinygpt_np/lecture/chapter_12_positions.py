"""01:00:18 Positional encoding

How does a model know in which order the tokens come? Chapters 7 to 10 took weighted sums over the
past, and a sum does not depend on the order of its terms. So the order must be in the tokens: the
embedding of its position is added to each token's embedding. It is learned here and in GPT-2, and
made of sines and cosines in "Attention Is All You Need" (3.5).
"""

from collections.abc import Callable

import numpy as np

from tinygpt_np import ops
from tinygpt_np.lecture import workbench
from tinygpt_np.lecture.workbench import BLOCK_SIZE, N_EMBD, Shapes
from tinygpt_np.model.language_model import LanguageModel, Saved
from tinygpt_np.storage.parameters import Tensors

Masks = Tensors | None
Result = tuple[np.ndarray, Saved]
Body = Callable[[Tensors, np.ndarray, int], Result]
Gradients = tuple[np.ndarray, Tensors]
BodyBackward = Callable[[np.ndarray, Saved], Gradients]


def last_output(x: np.ndarray) -> np.ndarray:
    """x (T, C) -> y (C,): the rows, weighted by products with the last."""
    weights, _ = ops.softmax.forward(x @ x[-1])  # (T,)
    return weights @ x  # (C,)


class Positioned(LanguageModel):
    """logits = body(wte[ids] + wpe[positions]) @ head + head_bias

    body: parameters, x (N, C), batch -> y (N, C), saved. In this chapter it
    is the identity; later chapters define their own.
    body_backward: dy (N, C), saved -> dx (N, C), gradients.
    """

    def __init__(
        self,
        shapes: Shapes,
        body: Body,
        body_backward: BodyBackward,
    ) -> None:
        C, V = N_EMBD, workbench.load_data()[0].vocab_size
        self.ops, self.vocab_size, self.block_size = ops, V, BLOCK_SIZE
        frame = {"wte": (V, C), "wpe": (BLOCK_SIZE, C)}
        frame |= {"head": (C, V), "head_bias": (V,)}
        self.params = workbench.initial(frame | shapes)
        self.body, self.body_backward = body, body_backward

    def forward(self, tokens: np.ndarray, masks: Masks = None) -> Result:
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
        dhead = y.T @ dlogits  # (C, V)
        dhead_bias = dlogits.sum(axis=0)  # (V,)
        # y, body = self.body(params, x, len(tokens))
        dx, grads = self.body_backward(dy, body)  # (N, C)
        # x = wte[ids] + wpe[positions]
        dwte = np.zeros_like(self.params["wte"])  # (V, C)
        dwpe = np.zeros_like(self.params["wpe"])  # (T, C)
        np.add.at(dwte, ids, dx)
        np.add.at(dwpe, positions, dx)
        outer = {"wte": dwte, "wpe": dwpe}
        return outer | {"head": dhead, "head_bias": dhead_bias, **grads}


def identity(params: Tensors, x: np.ndarray, batch: int) -> Result:
    """x (N, C) -> x, saved."""
    return x, ()


def identity_backward(dy: np.ndarray, saved: Saved) -> Gradients:
    return dy, {}


def main() -> None:
    # %% A sum does not know the order
    # "three" and "there" have the same letters before the same last one. If the last letter
    # weights all letters by how well they match it, its output is a sum over the same rows.
    # So we expect the same output for both words, to rounding of float32, and a different one
    # if positions are added to the rows.

    tokenizer = workbench.load_data()[0]
    model = Positioned({}, identity, identity_backward)
    wte, wpe = model.params["wte"], model.params["wpe"]  # (V, C), (T, C)
    three, there = wte[tokenizer.encode("three")], wte[tokenizer.encode("there")]
    unordered = last_output(three) - last_output(there)  # (C,)
    ordered = last_output(three + wpe[:5]) - last_output(there + wpe[:5])  # (C,)
    print("largest difference of the outputs for three and there, at the last letter")
    print(f"  tokens alone    expected 0, measured {np.abs(unordered).max():.1e}")
    print(f"  with positions  {np.abs(ordered).max():.1e}")
    print("Without positions, the model could not tell the two words apart.")

    # %% Sines and cosines
    # The paper does not learn positions. A pair of channels is the sine and cosine of the
    # position times a rate. One pair turns fast and separates neighbours, another hardly
    # turns and separates positions that are far apart.

    rates = 10_000.0 ** (-np.arange(0, N_EMBD, 2) / N_EMBD)  # (C/2,)
    angles = np.arange(BLOCK_SIZE)[:, None] * rates  # (T, C/2)
    pairs = np.dstack([np.sin(angles), np.cos(angles)])  # (T, C/2, 2)
    waves = pairs.reshape(BLOCK_SIZE, N_EMBD)  # (T, C)
    print("sinusoids: channels 0 and 1 turn fast, 8 and 9 slower, 30 and 31 hardly")
    for t in (0, 1, 2, 8, 15):
        print(f"  position {t:2}  " + " ".join(f"{waves[t, c]:6.3f}" for c in (0, 1, 8, 9, 30, 31)))

    # %% How similar are two positions?
    # The dot product of two rows tells. For a pair of waves it is sin a sin b + cos a cos b,
    # the cosine of the difference: only the distance of two positions counts. At distance 0
    # each of the C/2 pairs gives 1, and we expect C/2; farther apart, less.
    #
    # A table that will be learned starts at random: expect C times the variance of its numbers
    # at distance 0, and about 0 elsewhere.

    from_0 = waves[:8] @ waves[0]  # (8,)
    from_5 = waves[5:13] @ waves[5]  # (8,)
    learned = wpe[:8] @ wpe[0]  # (8,)
    print(f"expected at distance 0: sines {N_EMBD / 2:.2f}, random {N_EMBD * wpe.var():.2f}\n")
    print("distance                     " + " ".join(f"{d:5d}" for d in range(8)))
    for name, start, row in (
        ("sines", 0, from_0),
        ("sines", 5, from_5),
        ("learned", 0, learned),
    ):
        print(f"  {name:<7}  from position {start}: " + " ".join(f"{value:5.2f}" for value in row))
    print("Sines encode distance, the same at every position; a learned table must")
    print("learn it.")

    # %% Training
    # A token still does not see any other. All that its position adds is how far it is from
    # the start of its sequence, and sequences are cut from the text at random places, so this
    # says nothing about the next character. Expect the loss of chapter 11 and no gain.

    workbench.check_gradient(model)
    workbench.train(model, "with learned positions")
    print("\nNo better than without: a position is of no use before a token can look at")
    print("others.")

    # %% Try it
    # GPT-2 learns its positions. Newer models turn the queries and keys by an angle that
    # grows with the position, so that a score depends on the distance alone, as the sines do.

    workbench.try_it(
        "tinygpt train --positions learned --max-iters 200",
        "Compare the validation loss with that of --positions rotary_halves. What is gained "
        "by knowing distances from the first step on?",
    )


if __name__ == "__main__":
    main()
