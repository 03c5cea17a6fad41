"""The report in a real browser: drawn, quiet, self-contained, and usable on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from synthetic_run import evaluation, make_run

from evals.report import write_report
from seedbed.files import write_json

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_run(tmp_path_factory.mktemp("report") / "demo")
    write_json(run_dir / "evals" / "bits-per-byte-step-240.json", evaluation())
    return write_report(run_dir)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def test_the_charts_are_drawn_and_nothing_is_loaded_or_complained_of(browser: Browser, report: Path):
    """A report is read on machines without a network, years later: all of it must be in the file."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(report.as_uri())
    headings = "[...document.querySelectorAll('figure.chart h3')]"
    titles = browser.evaluate(f"{headings}.map(h => h.firstChild.data.trim())")
    assert titles == [
        "Bits per byte",
        "Loss",
        "Bits per byte",
        "Learning rate",
        "Gradient norm",
        "Throughput",
        "Model FLOPs utilisation",
        "Memory",
    ]
    drawn = browser.evaluate(
        "[...document.querySelectorAll('.stretch path')].map(p => p.getBoundingClientRect().width > 100)"
    )
    assert len(drawn) == 12
    assert all(drawn)
    assert browser.errors == []
    assert browser.requests == [report.as_uri()]


def test_a_sample_does_not_run(browser: Browser, report: Path):
    """What a model wrote must not act in the reader's browser."""
    browser.open(report.as_uri())
    assert browser.evaluate("document.title") == "gpt-demo on the standard library \N{MIDDLE DOT} Seedbed"
    assert browser.evaluate("document.querySelectorAll('.sample img, .sample script').length") == 0
    assert "<script>" in browser.evaluate("document.querySelector('.sample pre').textContent")


@pytest.mark.parametrize("width", [320, 360, 768, 1200])
def test_nothing_hangs_over_the_edge(browser: Browser, report: Path, width: int):
    """A page that scrolls sideways cannot be read on a phone."""
    browser.open(report.as_uri(), width=width, height=740)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    outside = browser.evaluate(
        "[...document.querySelectorAll('.plot text')].filter(t => {"
        " const r = t.getBoundingClientRect(), c = t.closest('figure').getBoundingClientRect();"
        " return r.left < c.left || r.right > c.right; }).map(t => t.textContent)"
    )
    assert outside == []
    sizes = "[...document.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize))"
    smallest = browser.evaluate(f"Math.min(...{sizes})")
    assert smallest >= 11


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_both_colour_schemes(browser: Browser, report: Path, dark: bool):
    """Grey on grey is unreadable on a projector: WCAG asks for a contrast of 4.5 for text of this size."""
    browser.open(report.as_uri(), dark=dark)
    assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    ratios = browser.evaluate(CONTRASTS)
    assert min(ratios.values()) >= 4.5, ratios


def test_pointing_at_a_chart_shows_the_values_there(browser: Browser, report: Path):
    """The number at one step is what people zoom and squint for."""
    browser.open(report.as_uri(), height=2000)
    box = browser.evaluate(
        "(() => { const r = document.querySelector('figure.full .plot > svg').getBoundingClientRect();"
        " return {left: r.left, top: r.top, width: r.width, height: r.height}; })()"
    )
    browser.move_pointer(box["left"] + box["width"] * 200 / 240, box["top"] + box["height"] / 2)
    shown = browser.evaluate("document.querySelector('figure.full .readout').textContent")
    assert shown.startswith("step 200")
    assert "validation 3.005" in shown
    cursor = browser.evaluate("document.querySelector('figure.full .cursor').getBoundingClientRect().left")
    assert cursor == pytest.approx(box["left"] + box["width"] * 200 / 240, abs=1.5)
    browser.move_pointer(1, 1)
    assert browser.evaluate("document.querySelector('figure.full .readout').textContent") == ""


CONTRASTS = """
(() => {
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = (name) => getComputedStyle(document.querySelector(name));
  const card = luminance(style("figure.chart").backgroundColor);
  const ratio = (color) => {
    const own = luminance(color);
    return (Math.max(own, card) + 0.05) / (Math.min(own, card) + 0.05);
  };
  const drawn = ["text.tick", "text.end.train", "text.end.validation", "text.end.plain", "text.reference"];
  const written = [".unit", ".note", ".key li", ".tiles dt", ".tiles small", "th", "dl.facts dt", ".pill"];
  return Object.fromEntries([
    ...drawn.map((name) => [name, ratio(style(name).fill)]),
    ...written.map((name) => [name, ratio(style(name).color)]),
  ]);
})()
"""
