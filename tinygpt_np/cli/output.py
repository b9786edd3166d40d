"""Output that several commands share."""

import contextlib
import shlex
import sys
from collections.abc import Generator, Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tinygpt_np.compiled import settings
from tinygpt_np.machine import launched


class Output(Console):
    """A rich console that raises BrokenPipeError instead of exiting.

    A process of an MPI launcher has no terminal, and so no progress bar: Open MPI's mpirun gives it
    a pseudo-terminal as stdout even if its own output goes to a file.
    """

    def __init__(self, **options: Any) -> None:
        if launched() is not None:
            options["force_terminal"] = False
        super().__init__(**options)

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that rich is handling."""
        raise


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Print pairs of a name and a text in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, text in facts:
        table.add_row(f"[bold]{name}[/bold]", Text(text, overflow="fold"))
    console.print(table)


def suggest(console: Console, what: str, command: str, path: object) -> None:
    """Print a command with a path, quoted for the shell, on one line."""
    quoted = escape(shlex.quote(str(path)))
    console.print(f"{what}:  {command} {quoted}", soft_wrap=True)


def write(stream: Iterable[str]) -> None:
    """Write text to stdout as it arrives, without markup or wrapping."""
    for text in stream:
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")


@contextlib.contextmanager
def announced(backend: str, console: Console) -> Generator[None]:
    """Show which kernels are compiled in the with block, if they are not cached on disk."""
    if backend != "numba":
        yield
        return
    settings.check()
    with console.status("starting the compiler") as status:
        # Imported here, because it imports Numba.
        from tinygpt_np.compiled import cache

        compiled: list[str] = []

        def announce(kernel: str) -> None:
            compiled.append(kernel)
            status.update(f"compiling {kernel} ({len(compiled)}); this happens only once")
            if not console.is_terminal and len(compiled) == 1:
                console.print("compiling the kernels; this happens only once and takes a while")

        with cache.watch(announce):
            yield
