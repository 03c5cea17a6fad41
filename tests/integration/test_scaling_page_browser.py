"""The page of a fit in a real browser: logarithmic axes are drawn, and pointed at, by two programs."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from evals.scaling.page import write_page
from evals.scaling.study import Recipe

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    rows = ["N,D,loss"]
    for budget in (1e17, 1e18, 1e19):
        for size in np.sqrt(budget / 120) * np.geomspace(1 / 5, 5, 7):
            tokens = budget / 6 / size
            rows.append(f"{size},{tokens},{1.7 + 400 / size**0.34 + 1500 / tokens**0.37}")
    (folder / "runs.csv").write_text("\n".join(rows) + "\n")
    return write_page(folder / "runs.csv", folder / "page.html", Recipe(bootstraps=100))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def test_the_page_is_whole_and_quiet(browser: Browser, page: Path):
    """Whoever reads it has no network, and no console to look at."""
    browser.open(page.as_uri())
    titles = browser.evaluate(
        "[...document.querySelectorAll('figure.chart h3')].map(h => h.firstChild.data.trim())"
    )
    assert titles[:4] == ["Loss over parameters", "Frontier", "Best size", "Residuals"]
    assert browser.evaluate("document.querySelectorAll('circle.points').length") > 60
    assert browser.errors == []
    assert browser.requests == [page.as_uri()]


def test_what_is_pointed_at_is_what_is_read(browser: Browser, page: Path):
    """On a logarithmic axis, the middle of the chart is not the middle of the values."""
    browser.open(page.as_uri(), height=4000)
    chart = "document.querySelectorAll('figure.chart')[1]"
    box = browser.evaluate(
        f"(() => {{ const r = {chart}.querySelector('.plot > svg').getBoundingClientRect();"
        " return {left: r.left, top: r.top, width: r.width, height: r.height}; })()"
    )
    ends = browser.evaluate(
        f"(() => {{ const d = JSON.parse({chart}.querySelector('script').textContent);"
        " return [d.low, d.high]; })()"
    )
    browser.move_pointer(box["left"] + box["width"] * 0.4, box["top"] + box["height"] / 2)
    shown = browser.evaluate(f"{chart}.querySelector('.readout').textContent")
    # The second curve has a value every few percent of the axis.
    at = float(shown.split("compute-optimal")[1].split("(at ")[1].split(")")[0])
    wanted = math.log(ends[0]) + 0.4 * (math.log(ends[1]) - math.log(ends[0]))
    assert math.log(at) == pytest.approx(wanted, abs=0.1)
    cursor = browser.evaluate(f"{chart}.querySelector('.cursor').getBoundingClientRect().left")
    assert 0.3 < (cursor - box["left"]) / box["width"] < 0.5


@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_hangs_over_the_edge(browser: Browser, page: Path, width: int):
    """Tables of many numbers would push a phone's page sideways."""
    browser.open(page.as_uri(), width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
