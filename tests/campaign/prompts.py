"""Strange prompts for models of characters, byte pairs and pieces.

Accepted prompts are compared with the most likely tokens by the logits of the model, computed again
for each token.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
from campaign import inputs
from campaign.damage import HUGE, arguments, flags
from campaign.faults import Action, Check, Damage, Outcome, harmless, refused
from helpers.tiny_run import TEXT

from tinygpt_np import GPT
from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers import CharTokenizer

MODELS = {"char": "runs/mine", "gpt2": "gpt", "sentencepiece": "runs/pieces"}
COMMANDS = {
    "char": ("sample", "mine", *inputs.SAMPLING),
    "gpt2": ("sample", "--model", "gpt", *inputs.SAMPLING),
    "sentencepiece": ("sample", "pieces", *inputs.SAMPLING),
}
CHARACTERS = sorted(set(TEXT))
STRANGE = (
    *(
        "é",
        "🙂",
        "👨‍👩‍👧‍👦",
        "e\u0301",
        "\u202eabc",
        "\u200b",
        "\ufeff",
        "\uffff",
        "\U0010ffff",
        "中文",
    ),
    *("<|endoftext|>", "▁", "▅", "<0x0A>", "<s>", "</s>", "<unk>", "Ġ", "Ċ", "\x1b[31m"),
    *("[bold]to[/bold]", "{}", "%s", "\\n", "$HOME", '"', "`ls`", "\t", "\x85"),
)


def build(folder: Path) -> None:
    inputs.run(folder)
    inputs.gpt2(folder)
    inputs.pieces(folder)
    inputs.run(folder, "pieces", "--tokenizer", "sentencepiece", "--tokenizer-path", "pieces")


def continues(folder: Path, kind: str, prompt: str) -> Check:
    """Return a check that the output is the prompt and the most likely tokens after it."""
    place = folder / MODELS[kind]
    if kind == "gpt2":
        model = GPT.from_pretrained(place)
    else:
        place = place / "checkpoints" / "000002"
        model = GPT.load(place)
    tokenizer = tokenizers.load(place)
    ids: list[int] = (tokenizer.encode(prompt) if prompt else tokenizer.start()).tolist()
    made: list[int] = []
    for _ in range(8):
        sequence = np.array([ids + made])[:, -model.block_size :]
        made.append(int(model.logits(sequence)[0, -1, : tokenizer.vocab_size].argmax()))
    expected = prompt + "".join(tokenizer.stream(made)) + "\n"
    return lambda outcome: "" if outcome.stdout == expected else f"expected {expected[-80:]!a}"


def prompted(kinds: Sequence[str], draw: Callable[[Random], str]) -> Action:
    """Sample after a prompt that is drawn for one of the models."""

    def action(rng: Random, folder: Path) -> Damage:
        kind, prompt = rng.choice(kinds), draw(rng)
        return Damage(
            f"the prompt {prompt[:30]!a}, {kind}",
            (*COMMANDS[kind], f"--prompt={prompt}"),
            check=continues(folder, kind, prompt),
        )

    return action


def ordinary(rng: Random) -> str:
    length = rng.choice((0, 1, 3, 9, 17, 300, 20_000))
    return rng.choice((" " * length, "\n" * length, "".join(rng.choices(CHARACTERS, k=length))))


def strange(rng: Random) -> str:
    return "to " * rng.randrange(3) + rng.choice(STRANGE) * rng.choice((1, 1, 1, 50))


def line_ends(rng: Random) -> str:
    return rng.choice(("a\rb", "\r\n", "to be\r\nor not", "\r" * 9))


def unknown(rng: Random, folder: Path) -> Damage:
    """Use a character that the model of characters does not know."""
    chosen = rng.choice([text for text in STRANGE if set(text) - set(CHARACTERS)])
    first = next(char for char in chosen if char not in CHARACTERS)
    return Damage(f"{chosen!a}", (f"--prompt=be {chosen}",), (f"U+{ord(first):04X}",))


def skipped(rng: Random, folder: Path) -> Damage:
    prompt = "".join(rng.choices([*CHARACTERS, *STRANGE], k=rng.randrange(1, 20)))
    kept = CharTokenizer(CHARACTERS).known(prompt)
    check = continues(folder, "char", kept)
    return Damage(f"{prompt!a}", (f"--prompt={prompt}", "--skip-unknown"), check=check)


def surrogate(rng: Random, folder: Path) -> Damage:
    half = rng.choice(("\ud800", "\udfff", "\ud83d", "\udcff", "\udc80"))
    names = (f"U+{ord(half):04X}", "UTF-8", "--prompt")
    return Damage(f"{half!a}", (f"--prompt=to {half}be",), names)


def echoes(outcome: Outcome) -> str:
    return "" if outcome.stdout == "to be\n" else "it should print only the prompt"


def likely(rng: Random, folder: Path) -> Damage:
    """Use sampling rules that leave only the most likely token."""
    rule = rng.choice((("--top-k", "1"), ("--temperature", "0"), ("--temperature", "1e-300")))
    check = continues(folder, "char", "to be")
    return Damage(" ".join(rule), ("--prompt", "to be", *rule), check=check)


SAMPLE = ("sample", "mine", "--backend", "numpy", "--tokens", "8")
BAD = ("-1", "nan", "x", "")
FAULTS = (
    harmless(prompted([*MODELS], ordinary), ((),), weight=5),
    harmless(prompted(["gpt2", "sentencepiece"], strange), ((),), weight=5),
    harmless(prompted(["gpt2"], line_ends), ((),)),
    refused(unknown, (COMMANDS["char"],), weight=3),
    harmless(skipped, (COMMANDS["char"],), weight=2),
    refused(surrogate, [*COMMANDS.values()], weight=2),
    refused(arguments(("--prompt",)), (COMMANDS["char"],), "--prompt"),
    refused(flags({"tokens": (*BAD, "-3", "1.5", str(-HUGE), "1e3", "٣x", "0x10", "None")}),
            (COMMANDS["char"][:-4],), weight=2),
    harmless(arguments(("--prompt", "to be", "--tokens", "0")),
             [command[:-4] for command in COMMANDS.values()], echoes),
    refused(
        flags({"temperature": (*BAD, "inf", "1e999"), "top-k": (*BAD, "0", "1.5", str(-HUGE)),
               "seed": (*BAD, "1.5", str(2**32), str(HUGE))}),
        (SAMPLE,), weight=3,
    ),
    harmless(likely, (SAMPLE,)),
    refused(arguments(("--greedy", "--temperature", "0.5"), ("--model", "gpt"),
                      ("--tokenizer-path", "pieces")), (SAMPLE,), "--greedy", "--model", "pieces"),
)  # fmt: skip
