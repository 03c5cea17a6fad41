"""The page of a fit: it must show what was fitted, by which recipe, and every doubt about it."""

import re

import numpy as np
import pytest

from evals.scaling.ledger import register, score
from evals.scaling.page import write_page
from evals.scaling.study import Recipe


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    draw = np.random.default_rng(0)
    rows = ["N,D,loss,wide"]
    for budget in (1e17, 1e18, 1e19, 1e20):
        for size in np.sqrt(budget / 120) * np.geomspace(1 / 5, 5, 7):
            tokens = budget / 6 / size
            loss = 1.7 + 400 / size**0.34 + 1500 / tokens**0.37
            rows.append(f"{size},{tokens},{loss * np.exp(0.005 * draw.standard_normal())},{size + 1e7}")
    rows.append("1e8,<script>alert(1)</script>,3,1e8")
    points = folder / "runs<b>.csv"
    points.write_text("\n".join(rows) + "\n")
    book = folder / "book.jsonl"
    register(book, {"parameters": 1e9, "tokens": 2e10, "loss": 2.5, "run_interval": [2.4, 2.6]}, name="big")
    score(book, 1, 2.7)
    recipe = Recipe(bootstraps=100, counts=("wide",))
    return write_page(points, folder / "out.html", recipe, [1e22], book).read_text()


def test_the_recipe_is_stated_in_full(page):
    """Half of the published fits cannot be made again for want of it."""
    for words in (
        "by the sum over 28 points of Huber&#x27;s loss (delta 0.001)",
        "BFGS with analytic gradients from 36 starts",
        "percentiles of 100 resamples of the points (seed 0)",
    ):
        assert words in page


def test_every_figure_is_there(page):
    """A reader would have to plot the points again to see what the law does to them."""
    titles = set(re.findall(r"<h3>([^<]+?) <span", page))
    assert {"Loss over parameters", "Frontier", "Best size", "Residuals", "E", "alpha", "beta"} <= titles
    assert {"1e+17 FLOP", "1e+18 FLOP", "1e+19 FLOP", "1e+20 FLOP"} <= titles
    assert page.count('class="validation points"') > 28 * 3


def test_doubts_and_outcomes_are_there(page):
    """A page without them would be believed."""
    assert "left out, line 30: could not convert string to float" in page
    assert "N is wide" in page
    assert "without 1e+17 FLOP (7 runs)" in page
    assert "0 of 1 within their 95 % interval" in page
    assert "outside" in page


SIZELESS = """N,D,loss
82016,450560,5.1099
82016,899072,4.7131
82016,1800192,4.4175
82016,3600384,4.2251
153840,450560,5.2586
153840,899072,4.7381
153840,1800192,4.2182
153840,3600384,3.9092
237888,450560,5.1993
237888,899072,4.7530
237888,1800192,4.2284
237888,3600384,3.8217
338320,450560,5.1540
338320,899072,4.7451
338320,1800192,4.2922
529056,450560,5.3109
529056,899072,4.8078
1115264,450560,5.1513
"""
"""Of a real ladder whose runs were too short for their sizes to show."""


@pytest.mark.filterwarnings("error")
def test_runs_that_do_not_show_their_sizes_have_a_page_that_says_so(tmp_path):
    """Who most needs to be told that a law is not determined would be shown a traceback."""
    points = tmp_path / "runs.csv"
    points.write_text(SIZELESS)
    text = write_page(points, tmp_path / "out.html", Recipe(bootstraps=200), [1e13, 1e20]).read_text()
    for name in ("A", "alpha", "E"):
        assert f"{name} is not determined" in text
    assert "nan" not in re.sub(r"<[^>]+>", " ", text).lower().split()


def test_what_a_file_holds_is_text(page):
    """A table of runs from elsewhere could run its own script in the reader's browser."""
    assert "<script>alert" not in page
    assert "runs<b>" not in page
    assert "Content-Security-Policy" in page
