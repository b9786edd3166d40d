"""Damaged texts, as --data and --text take them: encodings, places, sizes, names."""

import codecs
from collections.abc import Callable
from pathlib import Path
from random import Random

from campaign import bases, damage
from campaign.case import Case, Either, Kind, Process, Refused, contains, harmless, refused
from helpers.tiny_run import TEXT

TRAIN = ["train", "--data", "text.txt", *bases.TINY, "--eval-only"]
PREPARE = ["prepare", "--data", "text.txt", "--tokenizer", "char", "--out", "out"]
PAIRS = ["prepare", "--data", "text.txt", "--tokenizer-path", "pairs", "--out", "out"]
TOKENIZE = ["tokenize", "to be", "--data", "text.txt"]
LEARN = [
    *("tokenize", "--train", "sentencepiece", "--data", "text.txt"),
    *("--vocab-size", "290", "--out", "my.model"),
]
PIECES = [*TRAIN, "--tokenizer", "sentencepiece"]
CONVERT = ["convert", "bare", "out", "--text", "text.txt"]
READERS = (TRAIN, PREPARE, PAIRS, TOKENIZE, LEARN, CONVERT)
MEMORY = 3 << 30


def build(folder: Path) -> None:
    bases.text(folder)
    bases.byte_pair_files(folder)
    bases.run(folder)
    checkpoint = folder / "runs" / "mine" / "checkpoints" / "000002"
    (folder / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "bare" / name).write_bytes((checkpoint / name).read_bytes())


def write(folder: Path, content: bytes) -> None:
    (folder / "text.txt").write_bytes(content)


def other_encoding(rng: Random, folder: Path) -> Case:
    text = TEXT.replace("question", "questión")
    contents = {
        "UTF-16 with a byte order mark": text.encode("utf-16"),
        "UTF-16, high byte first": codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        "UTF-32": text.encode("utf-32"),
        "latin-1": text.encode("latin-1"),
        "cp1252": text.replace("ó", "€").encode("cp1252"),
        "EBCDIC": text.encode("cp500"),
        "UTF-8 with surrogates": text.encode() + "\ud800".encode(errors="surrogatepass"),
        "overlong UTF-8": text.encode() + b"\xc0\x80",
        "beyond Unicode": text.encode() + b"\xf5\x80\x80\x80",
    }
    way = rng.choice(list(contents))
    write(folder, contents[way])
    return refused(f"a text in {way}", rng.choice(READERS), "text.txt")


def broken_character(rng: Random, folder: Path) -> Case:
    text = (TEXT + "é").encode()
    place = rng.randrange(len(TEXT))
    bad = rng.choice([b"\xff", b"\x80", b"\xe2\x82", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f"])
    write(folder, text[:place] + bad + text[place:])
    return refused(f"{bad!r} in a text", rng.choice(READERS), "text.txt")


def cut_character(rng: Random, folder: Path) -> Case:
    write(folder, (TEXT + rng.choice("é€🙂")).encode()[:-1])
    return refused("a text cut within its last character", rng.choice(READERS), "text.txt")


def another_kind_of_file(rng: Random, folder: Path) -> Case:
    content = TEXT.encode()
    contents = {
        "a gzip": damage.zipped(rng, content),
        "a zip": b"PK\x03\x04\xff" + rng.randbytes(500),
        "a PNG": b"\x89PNG\r\n\x1a\n" + rng.randbytes(500),
        "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + rng.randbytes(500),
        "random bytes": b"\xff" + rng.randbytes(2000),
    }
    way = rng.choice(list(contents))
    write(folder, contents[way])
    return refused(f"{way} in place of a text", rng.choice(READERS), "text.txt")


def nothing(rng: Random, folder: Path) -> Case:
    write(folder, rng.choice([b"", codecs.BOM_UTF8]))
    return refused("an empty text", rng.choice(READERS), "text.txt")


def too_little(rng: Random, folder: Path) -> Case:
    content = rng.choice([b"a", b"\n", b" " * 20, b"ab" * 10, b"\0" * 30])
    write(folder, content)
    command = rng.choice((TRAIN, LEARN, CONVERT))
    return refused(f"a text of {content!r}", command, "text", "pieces", "characters")


def same_text(rng: Random, folder: Path) -> Case:
    """A byte order mark and other line ends, which are not part of the text."""
    content = TEXT.encode()
    contents = {
        "a byte order mark": codecs.BOM_UTF8 + content,
        "lines of Windows": content.replace(b"\n", b"\r\n"),
        "lines of an old Mac": content.replace(b"\n", b"\r"),
        "both": codecs.BOM_UTF8 + content.replace(b"\n", b"\r\n"),
    }
    way = rng.choice(list(contents))
    write(folder, contents[way])
    return harmless(
        f"a text with {way}", rng.choice((TRAIN, PREPARE, PAIRS, TOKENIZE, LEARN, CONVERT))
    )


def strange_characters(rng: Random, folder: Path) -> Case:
    """Unusual characters; their number shows that the text is read whole."""
    extra = rng.choice(
        ["\0", "\x1b[31m", "\u2028", "\x85", "\x1c", "\u202e", "\ufeff", "\uffff", "e\u0301", "🙂"]
    )
    text = TEXT + extra * 3
    write(folder, text.encode())
    count = f"{len(text):,} characters"
    command = rng.choice((TRAIN, PREPARE, PAIRS))
    return harmless(f"{extra!a} in a text", command, contains(count))


def displaced(rng: Random, folder: Path) -> Case:
    what = damage.displace(rng, folder / "text.txt")
    return refused(what, rng.choice(READERS), "text.txt")


def linked(rng: Random, folder: Path) -> Case:
    damage.behind_link(folder / "text.txt")
    command = rng.choice((PREPARE, PAIRS, TOKENIZE))
    return harmless("the text is behind a link", command)


DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/full", "/dev/tty", "/proc/self/mem")


def device(rng: Random, folder: Path) -> Case:
    """In a process of its own, for some of them have no end."""
    name = rng.choice(DEVICES)
    if rng.random() < 0.4:
        (folder / "text.txt").unlink()
        (folder / "text.txt").symlink_to(name)
        given = "text.txt"
    else:
        given = name
    command = [given if part == "text.txt" else part for part in rng.choice(READERS)]
    expected = Refused((given, name))
    return Case(f"{name} in place of a text", command, expected, process=Process(memory=MEMORY))


def pipe(rng: Random, folder: Path) -> Case:
    """A pipe can be read once; what is in it is taken whole, or refused."""
    name = rng.choice(("/dev/stdin", "/proc/self/fd/0"))
    command = [name if part == "text.txt" else part for part in rng.choice((PREPARE, TRAIN, PAIRS))]
    if rng.random() < 0.3:
        return Case("nothing through a pipe", command, Refused((name, "empty")), process=Process())
    expected = Either("pipes may be spooled", (name,), contains(f"{len(TEXT):,} characters"))
    return Case("a text through a pipe", command, expected, process=Process(stdin=TEXT.encode()))


def too_large(rng: Random, folder: Path) -> Case:
    """A file of holes, larger than the memory that the process may have."""
    size = rng.choice((8, 40)) << 30
    with (folder / "text.txt").open("wb") as file:
        file.truncate(size)
    command = rng.choice((TRAIN, TOKENIZE, LEARN, CONVERT))
    expected = Refused(("text.txt",))
    return Case(f"a text of {size:,} bytes", command, expected, process=Process(memory=MEMORY))


NAMES = (
    *("nosuch.txt", "", " ", ".", "..", "a\nb", "\ud800.txt", "x" * 300),
    *("text.txt/x", "~/text.txt", "$HOME", "file:/etc/passwd", "http:/t.txt"),
    *("TEXT.TXT", "\x1b[31mtext.txt", "[red]text.txt[/red]", "tinyShakespeare", "-"),
)


def named(rng: Random, folder: Path) -> Case:
    name = rng.choice(NAMES)
    command = [name if part == "text.txt" else part for part in rng.choice(READERS)]
    shown = name.strip("./~$\0")[:20].split("\n")[0]
    escaped = shown.encode(errors="backslashreplace").decode().replace("\x1b", "")
    names = (shown, escaped) if escaped.isascii() and escaped.strip("a\0 ") else ("",)
    return refused(f"a text called {name[:30]!a}", command, *names)


def several(rng: Random, folder: Path) -> Case:
    """A list of texts of which one is bad: nothing may be left of the good ones."""
    bad: dict[str, Callable[[], object]] = {
        "missing.txt": lambda: None,
        "folder": lambda: (folder / "folder").mkdir(),
        "latin.txt": lambda: (folder / "latin.txt").write_bytes(TEXT.encode() + b"\xe9"),
        "utf16.txt": lambda: (folder / "utf16.txt").write_bytes(TEXT.encode("utf-16")),
        "loop.txt": lambda: (folder / "loop.txt").symlink_to("loop.txt"),
    }
    name = rng.choice(list(bad))
    bad[name]()
    files = ["text.txt", "text.txt"]
    files.insert(rng.randrange(3), name)
    tail = rng.choice((PREPARE, PAIRS))[3:]
    return refused(f"{name} among other texts", ["prepare", "--data", *files, *tail], name)


def several_good(rng: Random, folder: Path) -> Case:
    times = rng.randrange(2, 6)
    command = ["prepare", "--data", *["text.txt"] * times, *PREPARE[3:]]
    count = f"{times * len(TEXT):,} characters"
    return harmless(f"a text given {times} times", command, contains(count))


def bad_out(rng: Random, folder: Path) -> Case:
    (folder / "full").mkdir()
    (folder / "link").symlink_to("nothing")
    out, names = rng.choice(
        [
            ("full", ("full",)), ("text.txt", ("text.txt",)), (".", (".",)), ("", ("--out",)),
            ("text.txt/x", ("text.txt",)), ("link", ("link",)), ("x" * 300, ("xxx",)),
            ("/proc/x", ("/proc",)), ("link/x", ("link",)), ("/dev/null", ("/dev/null",)),
            ("\ud800", ("d800",)),
        ]
    )  # fmt: skip
    command = [*rng.choice((PREPARE, PAIRS))[:-1], out]
    return refused(f"prepared into {out[:20]!a}", command, *names)


def bad_model_out(rng: Random, folder: Path) -> Case:
    out, names = rng.choice(
        [
            ("text.txt", ("text.txt",)), (".", (".",)), ("pairs", ("pairs",)),
            ("text.txt/x", ("text.txt",)), ("/proc/x", ("/proc",)), ("x" * 300, ("xxx",)),
            ("", ("--out", ".")),
        ]
    )  # fmt: skip
    return refused(f"pieces written to {out[:20]!a}", [*LEARN[:-1], out], *names)


def bad_count(rng: Random, folder: Path) -> Case:
    count = rng.choice(
        ("0", "-1", "1", "5", "100", "100000", "2147483648", str(10**30), "x", "1.5")
    )
    command = [count if part == "290" else part for part in LEARN]
    return refused(f"{count} pieces", command, "vocab", "pieces")


def pieces_of_little(rng: Random, folder: Path) -> Case:
    text = rng.choice(["a" * 3000, "\n" * 3000, "▁" * 3000, "\0" * 3000, "ab\n" * 900, "▅\0" * 900])
    write(folder, text.encode())
    names = ("pieces", "SentencePiece", "vocab", "text.txt")
    return refused(f"pieces of a text of {text[:3]!a}", rng.choice((PIECES, LEARN)), *names)


def wrong_text_for_model(rng: Random, folder: Path) -> Case:
    write(folder, rng.choice([TEXT + "é", TEXT.replace("q", "Q") + "q", "abc" * 100]).encode())
    return refused("another text than the model's", CONVERT, "text.txt")


def long_line(rng: Random, folder: Path) -> Case:
    """One word of a million characters; the text comes back whole."""
    length = rng.choice((10_000, 1_000_000))
    write(folder, (TEXT + rng.choice("aé") * length).encode())
    command = rng.choice((PREPARE, TOKENIZE))
    count = f"{len(TEXT) + length:,} characters" if command is PREPARE else "5 tokens"
    return harmless(f"a word of {length:,} letters", command, contains(count))


KINDS: tuple[Kind, ...] = (
    other_encoding, other_encoding, other_encoding, broken_character, broken_character,
    cut_character, another_kind_of_file, nothing, too_little, same_text, same_text,
    strange_characters, displaced, displaced, linked, device, pipe, too_large, named, named, named,
    several, several_good, bad_out, bad_out, bad_model_out, bad_count, pieces_of_little,
    wrong_text_for_model, long_line,
)  # fmt: skip
