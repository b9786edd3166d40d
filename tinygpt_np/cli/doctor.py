"""`tinygpt doctor`: show the machine, test the compiled kernels on it, and fit them to it."""

import contextlib
import json
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tinygpt_np import machine
from tinygpt_np.cli.flags import Switch
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

    tune: Switch = False
    "measure which sizes of a matmul's blocks suit this processor, and use them from now on"

    def execute(self, console: Console) -> None:
        """Print facts about the machine and test every kernel; exit with 1 if one is wrong."""
        if self.tune:
            tune(console)
            return
        settings.check_values()
        with starting(console):
            from tinygpt_np.gradcheck import self_test
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


@contextlib.contextmanager
def starting(console: Console) -> Generator[None]:
    """Import Numba, which is slow, and kernels that are compiled on import, in the with block."""
    try:
        with console.status("starting; kernels are compiled only once"):
            yield
    except ImportError as error:
        raise RuntimeError(f"Numba cannot be imported: {error}") from None


def tune(console: Console) -> None:
    """Measure the sizes of a matmul's blocks, show them, and keep them for this machine."""
    settings.check()
    with starting(console):
        from tinygpt_np.compiled import tuning
        from tinygpt_np.compiled.simd import blocks

    start, source = blocks.chosen()
    console.print(f"sizes of a matmul's blocks on {blocks.processor()}; until now: {source}")
    began = time.monotonic()
    with console.status("measuring") as status:

        def report(name: str, done: float) -> None:
            left = (time.monotonic() - began) * (1 - done) / done
            status.update(f"measuring {name}: {done:.0%}, about {left:.0f} s left")

        found, trials = tuning.tune(start, report)
    table = Table("size", box=None, pad_edge=False)
    table.add_column("choice", justify="right")
    table.add_column("speed", justify="right")
    table.add_column("")
    for each in trials:
        chosen = "[green]chosen[/green]" if each.taken else ""
        table.add_row(each.name, f"{each.size:,}", f"{each.gain:.2f}", chosen)
    console.print(table)
    text = "speed: of gradients of weights, as a multiple of that with the size until now"
    console.print(f"{text}; less than {tuning.GAIN} changes nothing", soft_wrap=True)
    console.print(f"kept in {blocks.keep(found)}", markup=False, soft_wrap=True)
    row = f'"{blocks.processor()}": {json.dumps(found._asdict())}'
    console.print(f"the row for {blocks.TABLE.name}: {row}", markup=False, soft_wrap=True)


def cache_facts() -> Iterator[tuple[str, str]]:
    """Yield the sizes of a matmul's blocks, and the size and the folder of the compile cache."""
    from tinygpt_np.compiled import cache  # Imports Numba.
    from tinygpt_np.compiled.simd import blocks

    sizes, source = blocks.chosen()
    chosen = ", ".join(f"{name} {size:,}" for name, size in sizes._asdict().items())
    yield "blocks", f"{chosen}, {source}"
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
