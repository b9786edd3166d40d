"""The pages in a real browser: wide and narrow, light and dark."""

from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Page, lowest_contrast, open_page
from helpers.kernel_results import candidate, found, record

from benchmarks.render import page as kernels_page
from benchmarks.render import side_by_side

pytestmark = pytest.mark.slow  # Starts a browser.

COUNTS = {"instructions": 5.1e9, "cycles": 2.2e9, "misses": 1e7}
LOOP = ["  vfmadd231ps (%rdi,%r14,4), %zmm8, %zmm4  FMA ×16, load", "4 FMA ×16, 8 loads, 3 others"]
SCREENS = [
    {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    for width in (1200, 800, 400)
    for scheme in ("light", "dark")
]


def rows() -> list[dict[str, Any]]:
    """Return rows in all states, with long names and many columns."""
    more: dict[str, Any] = {"packed": 1.0, "counters": COUNTS, "compile_seconds": 12.5}
    text = "Traceback (most recent call last):\n" + "  File 'a.py', line 12, in product\n" * 5
    return [
        candidate("loops", **more),
        candidate("a rung whose name has more than 40 letters", loop=LOOP, loop_flops=128, **more),
        candidate("tiles", trained=True, warnings=["A/A of ours is 1.42"], **more),
        candidate("shared", 2, trained=True, unresolved="2 threads had 1.1 CPUs", **more),
        candidate("my_kernel.py:antidisestablishmentarianism", by="mine", reference=True, **more),
        candidate("broken.c:f", by="mine", reference=True, failed="signal 11", traceback=text),
        candidate("theirs", by="torch", reference=True, layouts="contiguous only", **more),
    ]


@pytest.mark.parametrize("page", SCREENS, indirect=True)
@pytest.mark.parametrize("name", ["kernels", "both"])
def test_pages_fit_the_screen_and_all_text_can_be_read(
    page: Page, name: str, tmp_path: Path
) -> None:
    result = found(record(rows=rows()), record(rows=rows(), shape="gpt2"))
    kernels_page.write(result, tmp_path / "kernels.html")
    both = side_by_side.view([result, result], ["a-long-name-of-a-processor", "another-long-name"])
    side_by_side.write(both, tmp_path / "both.html")
    open_page(page, tmp_path, name)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    worst = lowest_contrast(page)
    assert worst["ratio"] > 4.5, worst


CORNER = """(image) => {
  const context = document.createElement("canvas").getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(1, 1, 1, 1).data].slice(0, 3);
}"""


@pytest.mark.parametrize("page", SCREENS, indirect=True)
def test_pictures_of_a_sweep_are_as_dark_as_the_page_and_fit_it(page: Page, tmp_path: Path) -> None:
    cases = [record(rows=rows(), sizes=dict.fromkeys("NCK", size), shape=f"N={size}")
             for size in (64, 128)]  # fmt: skip
    options = found()["options"] | {"sweep": {"letters": [], "numbers": [64, 128]}}
    kernels_page.write(found(*cases, options=options), tmp_path / "sweep.html")
    open_page(page, tmp_path, "sweep")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    (corner,) = [image.evaluate(CORNER) for image in page.locator("img").all()]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert f"rgb({', '.join(map(str, corner))})" == paper
    assert page.locator("summary").count() >= 2


def test_a_choice_of_shape_hides_the_others(page: Page, tmp_path: Path) -> None:
    kernels_page.write(found(record(), record(shape="gpt2")), tmp_path / "kernels.html")
    open_page(page, tmp_path, "kernels")
    shown = page.locator("h3:visible")
    assert shown.all_text_contents() == ["matmul, cpu"]
    page.check("input[value=gpt2]")
    assert shown.all_text_contents() == ["matmul, gpt2"]
    page.check("input[value='']")
    assert shown.count() == 2
