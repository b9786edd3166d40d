"""afterwards The adder: sums learned from examples

Can the same GPT learn to add, from examples alone? This is not in the lecture, but in minGPT
(projects/adder). A sum is a sequence of seven digits, two for each number and three for the answer:
85 + 50 = 135 is 8550531. The answer is written backwards, ones first, so that each of its digits
follows from digits that are already there.

The digits before the answer cannot be predicted and are not to be learned: their targets are -1,
which the loss does not count.
"""

import contextlib
import time

import numpy as np

from tinygpt_np import GPT
from tinygpt_np.config import TrainConfig, generator
from tinygpt_np.lecture import workbench
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.training import engine

STEPS, HELD_OUT, SEED = 3000, 500, 1337
GIVEN, ANSWER = 4, 3
CONFIG = TrainConfig(
    block_size=GIVEN + ANSWER - 1,
    n_layer=2,
    n_head=4,
    n_embd=64,
    bias=True,
    batch_size=128,
    learning_rate=3e-3,
    seed=SEED,
)


def all_sums() -> np.ndarray:
    """Return all sums of two numbers below 100 as digits (10000, 7).

    The answer is written backwards.
    """
    a, b = np.divmod(np.arange(100 * 100), 100)  # (M,)
    total = a + b  # (M,)
    given = (a // 10, a % 10, b // 10, b % 10)
    answer = (total % 10, total // 10 % 10, total // 100)
    return np.stack([*given, *answer], axis=1)  # (M, 7)


def example(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sums (B, 7) -> tokens and targets (B, 6), -1 before the answer."""
    tokens, targets = sums[:, :-1], sums[:, 1:].copy()  # (B, 6)
    targets[:, : GIVEN - 1] = -1
    return tokens, targets


def learn(
    model: GPT,
    train: np.ndarray,
    held_out: np.ndarray,
    rng: np.random.Generator,
) -> int:
    """Train in place until Ctrl-C, and return the number of steps."""
    betas = CONFIG.beta1, CONFIG.beta2
    optimizer = AdamW(model.params, *betas, CONFIG.weight_decay)
    start, step = time.perf_counter(), 0
    with contextlib.closing(engine.make(model, CONFIG)) as trainer:
        trainer.warm_up(optimizer)
        with contextlib.suppress(KeyboardInterrupt):
            for step in range(STEPS):
                chosen = rng.integers(len(train), size=CONFIG.batch_size)
                tokens, targets = example(train[chosen])  # (B, 6)
                loss, grads = trainer.loss_and_grads(tokens, targets)
                warm, decay = min(1, (step + 1) / 50), 1 - step / STEPS
                rate = CONFIG.learning_rate * warm * decay
                norm = trainer.norm(grads)
                trainer.update(optimizer, grads, norm, rate, CONFIG.grad_clip)
                if (step + 1) % max(STEPS // 10, 1) == 0:
                    seconds = (time.perf_counter() - start) / (step + 1)
                    report(model, held_out, step + 1, loss, seconds)
            return STEPS
    return step


def report(
    model: GPT,
    held_out: np.ndarray,
    steps: int,
    loss: float,
    seconds: float,
) -> None:
    """Print the progress of a training that takes so many seconds a step."""
    accuracy = correct(model, held_out).mean()
    left = seconds * (STEPS - steps)
    done = f"  step {steps:5d}  loss {loss:.4f}  {accuracy:7.1%} correct"
    print(f"{done}  {left:3.0f} s left")


def answers(model: GPT, sums: np.ndarray) -> np.ndarray:
    """sums (B, 7) -> the most likely digits of the answers (B, 3)."""
    made = model.generate(sums[:, :GIVEN], ANSWER, temperature=0)
    return np.stack(list(made), axis=1)  # (B, 3)


def correct(model: GPT, sums: np.ndarray) -> np.ndarray:
    """sums (B, 7) -> (B,) whether all digits of the answer are correct."""
    return (answers(model, sums) == sums[:, GIVEN:]).all(axis=1)  # (B,)


def number(backwards: np.ndarray) -> int:
    """Return the number with these digits, ones first."""
    return sum(int(digit) * 10**place for place, digit in enumerate(backwards))


def equation(digits: np.ndarray) -> str:
    """Return a sum as text, such as 85 + 50 = 135."""
    a, b = (10 * int(digits[i]) + int(digits[i + 1]) for i in (0, 2))
    return f"{a:2d} + {b:2d} = {number(digits[GIVEN:])}"


def main() -> None:
    # %% A sum is a text
    # The targets are the tokens, one place later. The first three tell nothing about the
    # next, since the two numbers are random, so only the three digits of the answer count.

    sums = all_sums()
    tokens, targets = example(sums[85 * 100 + 50][None])  # (1, 6)
    print("85 + 50 = 135 is the sequence", "".join(map(str, sums[85 * 100 + 50])))
    print("  tokens  " + " ".join(f"{token:2d}" for token in tokens[0]))
    print("  targets " + " ".join(f"{target:2d}" for target in targets[0]))
    print("A target of -1 is not counted: the loss is only that of the answer's digits.")

    # %% Before training
    # 500 of the sums are held out, to tell whether it learns to add or learns by heart. A
    # guess among ten digits costs ln 10, and three guesses are all correct once in a thousand.

    rng = generator(SEED, "data")
    order = rng.permutation(len(sums))  # (M,)
    held_out, train = np.split(sums[order], [HELD_OUT])  # (·, 7) each
    model = GPT(CONFIG.gpt(vocab_size=10), SEED, backend=CONFIG.backend)
    size = sum(param.size for param in model.params.values())
    loss = model.loss(*example(held_out))
    before = correct(model, held_out)  # (HELD_OUT,)
    print(f"{size:,} parameters, {len(train):,} sums to learn from, {HELD_OUT} held out")
    print(f"  expected: loss ln 10 = {np.log(10):.3f}, {10**-3:7.1%} of them correct")
    print(f"  before training:       {loss:.3f}, {before.mean():7.1%} of them correct")
    print("It is a little worse than a guess of equal chances, as in chapter 4.")

    # %% Training
    # The answer is fully determined by what comes before, so no loss is left in the end: 0
    # is expected, if two layers can add. Each digit needs two digits of the numbers, and
    # whether the digit before it has carried: attention can read all of them.

    taken = learn(model, train, held_out, rng)
    if taken < STEPS:
        print(f"stopped after {taken} steps of {STEPS}; what it has learned so far:")

    # %% Sums that it never saw
    # A model that had learned the others by heart would guess these, and be correct once in
    # a thousand. If it has learned to add, expect all of them to be correct.

    known = correct(model, held_out)  # (HELD_OUT,)
    print(f"of {HELD_OUT} sums that it never saw, {known.sum()} are correct: {known.mean():.1%}")
    for given, made in zip(held_out, answers(model, held_out), strict=True):
        if (given[GIVEN:] != made).any():
            print(f"  {equation(given)}, but it says {number(made)}")
    print("The answer is read backwards: the carry goes from the ones to the tens, as on")
    print("paper.")
    for given in held_out[:5]:
        print(f"  {equation(given)}")

    # %% Try it
    # How is it wrong, before it is right? Ctrl-C ends the training, and the wrong answers of the
    # model as it is are listed.

    workbench.try_it(
        "tinygpt lecture adder",
        "Press Ctrl-C after the first line of the training. How many of the wrong answers are off "
        "by 1 or by 10?",
    )


if __name__ == "__main__":
    main()
