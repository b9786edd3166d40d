"""Damaged texts, as --data and --text take them: encodings, places, sizes, names."""

import codecs
from pathlib import Path
from random import Random

from campaign import inputs
from campaign.damage import (
    BYTES,
    DEVICES,
    PLACES,
    arguments,
    displaced,
    linked,
    nothing,
    rewritten,
    shown,
)
from campaign.faults import Action, Damage, harmless, prints, refused
from helpers.tiny_run import TEXT

CONTENT = TEXT.encode()
OTHER = TEXT.replace("question", "questión")
TRAIN = (*inputs.TRAIN, "--eval-only")
PREPARE = ("prepare", "--data", "text.txt", "--tokenizer", "char", "--out", "out")
PAIRS = ("prepare", "--data", "text.txt", "--tokenizer-path", "pairs", "--out", "out")
TOKENIZE = ("tokenize", "to be", "--data", "text.txt")
LEARN = ("tokenize", "--train", "sentencepiece", "--data", "text.txt", "--out", "my.model")
LEARN_290 = (*LEARN, "--vocab-size", "290")
CONVERT = ("convert", "bare", "out", "--text", "text.txt")
OUT = ("prepare", "--out", "out")
READERS = (TRAIN, PREPARE, PAIRS, TOKENIZE, LEARN_290, CONVERT)


def build(folder: Path) -> None:
    inputs.run(folder)
    inputs.pairs(folder)
    (folder / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        source = folder / "runs" / "mine" / "checkpoints" / "000002" / name
        (folder / "bare" / name).write_bytes(source.read_bytes())


def text(**contents: bytes) -> Action:
    return rewritten(["text.txt"], contents)


def inserted(rng: Random, folder: Path) -> Damage:
    """Insert bytes that are not UTF-8 anywhere."""
    place = rng.randrange(len(TEXT))
    bad = rng.choice([b"\xff", b"\x80", b"\xe2\x82", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f"])
    (folder / "text.txt").write_bytes(CONTENT[:place] + bad + CONTENT[place:])
    return Damage(f"{bad!r} in a text")


def among_others(rng: Random, folder: Path) -> Damage:
    """Give a list of texts of which one is bad."""
    name = rng.choice(("missing.txt", "folder", "latin.txt", "loop.txt"))
    if name == "folder":
        (folder / name).mkdir()
    elif name == "latin.txt":
        (folder / name).write_bytes(CONTENT + b"\xe9")
    elif name == "loop.txt":
        (folder / name).symlink_to(name)
    files = ["text.txt", "text.txt"]
    files.insert(rng.randrange(3), name)
    return Damage(f"{name} among other texts", ("--data", *files), (name,))


def named(rng: Random, folder: Path) -> Damage:
    name = rng.choice(
        (
            *("nosuch.txt", "", " ", ".", "..", "a\nb", "\ud800.txt", "x" * 300, "text.txt/x", "-"),
            *("~/text.txt", "$HOME", "file:/etc/passwd", "http:/t.txt", "TEXT.TXT"),
            *("\x1b[31mtext.txt", "[red]text.txt[/red]", "tinyShakespeare"),
        )
    )
    return Damage(f"a text called {name[:30]!a}", (f"--data={name}",), shown(name))


STRANGE = ("\0", "\x1b", "\u2028", "\x85", "\x1c", "\u202e", "\ufeff", "\uffff", "🙂")
OUTS = ("runs", "text.txt", ".", "text.txt/x", "x" * 300, "/proc/x", "/dev/null", "\ud800")

FAULTS = (
    refused(
        text(
            utf_16=OTHER.encode("utf-16"),
            utf_16_be=codecs.BOM_UTF16_BE + OTHER.encode("utf-16-be"),
            utf_32=OTHER.encode("utf-32"),
            latin_1=OTHER.encode("latin-1"),
            cp1252=OTHER.replace("ó", "€").encode("cp1252"),
            ebcdic=OTHER.encode("cp500"),
            surrogates=CONTENT + "\ud800".encode(errors="surrogatepass"),
            overlong=CONTENT + b"\xc0\x80",
            beyond_unicode=CONTENT + b"\xf5\x80\x80\x80",
            cut_within_a_character=(TEXT + "🙂").encode()[:-1],
            a_zip=b"PK\x03\x04\xff" + bytes(range(256)),
            a_png=b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
            a_pdf=b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(range(256)),
            empty=b"",
            only_a_mark=codecs.BOM_UTF8,
        ),
        READERS, "text.txt", weight=5,
    ),
    refused(rewritten(["text.txt"], {"compressed": BYTES["compressed by gzip"]}), READERS),
    refused(inserted, READERS, "text.txt", weight=2),
    refused(
        text(a=b"a", newline=b"\n", spaces=b" " * 20, short=b"ab" * 10, zeros=b"\0" * 30),
        (TRAIN, LEARN_290, CONVERT), "text", "pieces", "characters",
    ),
    harmless(
        text(
            with_a_mark=codecs.BOM_UTF8 + CONTENT,
            with_lines_of_windows=CONTENT.replace(b"\n", b"\r\n"),
            with_lines_of_an_old_mac=CONTENT.replace(b"\n", b"\r"),
            with_both=codecs.BOM_UTF8 + CONTENT.replace(b"\n", b"\r\n"),
        ),
        READERS, weight=2,
    ),
    harmless(
        rewritten(["text.txt"], {f"with {x!a}": (TEXT + x).encode() for x in STRANGE}),
        (TRAIN, PREPARE, PAIRS), prints(f"{len(TEXT) + 1:,} characters"),
    ),
    refused(displaced("text.txt", ways=(*PLACES, *DEVICES)), READERS, "text.txt", weight=2),
    harmless(linked("text.txt"), (PREPARE, PAIRS, TOKENIZE)),
    refused(named, (("train", *inputs.TINY), OUT, TOKENIZE[:2],
                    ("tokenize", "--train", "sentencepiece", "--out", "my.model")), weight=3),
    refused(among_others, (OUT, (*OUT, "--tokenizer-path", "pairs"))),
    harmless(arguments(("--data", *["text.txt"] * 3)), ((*OUT, "--tokenizer", "char"),),
             prints(f"{3 * len(TEXT):,} characters")),
    refused(
        arguments(*(("--out", out) for out in OUTS)),
        (PREPARE[:-2], PAIRS[:-2], (*LEARN[:-2], "--vocab-size", "290")),
        *(name for out in OUTS for name in (*shown(out), out[:5])), "--out", weight=2,
    ),
    refused(
        arguments(*(("--vocab-size", count) for count in
                    ("0", "-1", "1", "5", "100", "100000", "2147483648", str(10**30), "x", "1.5"))),
        (LEARN,), "vocab", "pieces",
    ),
    refused(
        text(one_letter=b"a" * 3000, newlines=b"\n" * 3000, two_letters=b"ab\n" * 900,
             spaces="▁".encode() * 3000, reserved="▅\0".encode() * 900),
        ((*TRAIN, "--tokenizer", "sentencepiece"), LEARN),
        "pieces", "SentencePiece", "vocab", "text",
    ),
    refused(text(with_é=(TEXT + "é").encode(), with_Q=(TEXT + "Q").encode(), of_abc=b"abc" * 100),
            (CONVERT,), "text.txt"),
    harmless(text(with_a_long_word=(TEXT + "a" * 1_000_000).encode()), (PREPARE,),
             prints(f"{len(TEXT) + 1_000_000:,} characters")),
    harmless(nothing, READERS),
)  # fmt: skip
