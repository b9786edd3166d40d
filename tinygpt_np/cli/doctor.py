"""`tinygpt doctor`: show the machine, and test the compiled kernels on it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tinygpt_np import machine
from tinygpt_np.cli.output import print_facts
from tinygpt_np.compiled import settings
from tinygpt_np.config import counted

if TYPE_CHECKING:
    from tinygpt_np.gradcheck.self_test import Found


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show the machine, and test every compiled kernel on it.

    Exit with 1 if one is wrong.
    """

    def execute(self, console: Console) -> None:
        """Print facts about the machine and test every kernel; exit with 1 if one is wrong."""
        settings.check_values()
        try:
            # Imports Numba, which is slow, and kernels that are compiled on import.
            with console.status("starting; kernels are compiled only once"):
                from tinygpt_np.gradcheck import self_test
        except ImportError as error:
            raise RuntimeError(f"Numba cannot be imported: {error}") from None
        print_facts(console, [*machine.facts(), *cache_facts()])
        if setting := settings.compiler_is_off():
            problem = f"{setting} turns Numba's compiler off; no compiled kernel can be tested"
            console.print(f"\n{problem}")
            return
        console.print("\nself-test of numba in float32, against NumPy in float64")
        with console.status("testing") as status:

            def announce(kernel: str) -> None:
                text = f"compiling {kernel}; this happens only once"
                status.update(text) if console.is_terminal else console.print(text)

            found = self_test.self_test(announce)
        show(found, self_test.BOUND, console)
        if not all(each.ok for each in found):
            sys.exit(1)


def cache_facts() -> Iterator[tuple[str, str]]:
    """Yield the size and the folder of the compile cache."""
    from tinygpt_np.compiled import cache  # Imports Numba.

    state = cache.cache_state()
    use = f"{counted(state.kernels, 'kernel')}, {state.bytes / 1e6:.1f} MB"
    yield "cache", use if state.writable else f"{use}, and CANNOT BE WRITTEN"
    yield "", str(state.folder)


def show(found: "list[Found]", bound: float, console: Console) -> None:
    """Print a table of the operations tested, and a verdict."""
    table = Table("operation", box=None, pad_edge=False)
    table.add_column("largest error", justify="right")
    table.add_column("verdict")
    for each in found:
        verdict = "[green]ok[/green]" if each.ok else "[bold red]wrong[/bold red]"
        table.add_row(each.operation, "" if each.problem else f"{each.error:.1e}", verdict)
    console.print(table)
    for each in found:
        if each.problem:
            console.print(f"{each.operation}: {each.problem}", markup=False, soft_wrap=True)
    wrong = sum(not each.ok for each in found)
    verdict = f"[bold red]{wrong} wrong[/bold red]" if wrong else "[green]all correct[/green]"
    console.print(
        f"{counted(len(found), 'operation')}, {verdict}; errors up to {bound:.0e} are rounding"
    )
