"""Charts: what is drawn must be what was measured."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from evals.report.axes import linear_axis, log_axis, tick_labels, value_label
from evals.report.bars import Bar, bar_chart
from evals.report.charts import Chart, Mark, Series, line_chart, spread
from evals.report.series import column, finite_runs, moving_mean, smoothing_window, thin


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of_class(self, *names: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.found if set(names) <= set((a.get("class") or "").split())]


def chart(y: list[float], **options) -> Chart:
    return Chart("Loss", "nats", [Series("loss", np.arange(1.0, len(y) + 1), np.array(y))], **options)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (2.81, 9.0, ["2", "4", "6", "8", "10"]),
        (0, 1e-3, ["0", "2e-4", "4e-4", "6e-4", "8e-4", "1e-3"]),
        (0, 48_000, ["0", "10k", "20k", "30k", "40k", "50k"]),
        (1.4, 2.3, ["1.4", "1.6", "1.8", "2.0", "2.2", "2.4"]),
    ],
)
def test_ticks_are_round_and_hold_the_data(low, high, labels):
    """Ticks such as 2.37 and 4.74 make a chart that nobody can read a value from."""
    axis = linear_axis(low, high)
    assert [label for _, label in axis.ticks] == labels
    assert axis.low <= low < high <= axis.high


def test_ticks_differ_even_on_a_narrow_range():
    """Five ticks that all say 100k tell the reader nothing."""
    labels = [label for _, label in linear_axis(100_000, 100_040, tight=True).ticks]
    assert len(set(labels)) == len(labels) >= 4
    assert tick_labels([0.5]) == ["0.5"]


@pytest.mark.parametrize(("low", "high"), [(0.3, 14.0), (1e-5, 3.0), (2.0, 2.0), (0.9, 1.1), (1e-9, 1e9)])
def test_log_axes_hold_the_data(low, high):
    """A curve that leaves the plot is a value that was hidden."""
    axis = log_axis(low, high)
    assert axis.low <= low <= high <= axis.high
    assert axis.low < axis.high
    assert 1 <= len(axis.ticks) <= 8
    assert axis.fraction(axis.low) == 0
    assert axis.fraction(axis.high) == pytest.approx(1)
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9])
def test_a_constant_curve_has_an_axis(value):
    """A constant learning rate must not divide by zero in the report of a long run."""
    axis = linear_axis(value, value)
    assert axis.low < value < axis.high or axis.low <= value < axis.high


def test_a_missing_value_is_a_gap_and_is_counted():
    """A line drawn across a NaN shows a loss that never was."""
    html = line_chart(chart([3.0, 2.0, float("nan"), 2.0, 1.0]))
    path = next(a["d"] for tag, a in Elements(html).found if tag == "path")
    assert path is not None
    assert path.count("M") == 2
    assert "1 value is missing" in html


def test_points_are_where_their_values_say():
    """The curve must agree with the axis beside it."""
    html = line_chart(chart([0.0, 10.0, 5.0], from_zero=True, height=100))
    path = next(a["d"] for tag, a in Elements(html).found if tag == "path")
    assert path == "M0.0 100.0L500.0 0.0L1000.0 50.0"
    ticks = re.findall(r'x="-8" y="([\d.]+)" dy="0.32em" text-anchor="end">([\d.]+)<', html)
    assert ("100.0", "0") in ticks
    assert ("0.0", "10") in ticks


@pytest.mark.parametrize("y", [[], [float("nan")], [float("inf"), float("-inf")]])
def test_nothing_to_draw_is_no_chart(y):
    """An empty frame in a report looks like a fault of the run."""
    assert line_chart(chart(y)) == ""


@pytest.mark.parametrize("is_log", [False, True])
def test_one_point_is_drawn(is_log):
    """The first step of a run should be visible, not wait for the second."""
    html = line_chart(chart([2.5], is_log=is_log))
    assert "2.5" in html
    assert 'd="M' in html


def test_values_without_a_logarithm_are_gaps():
    """A gradient norm of zero must not take the report down."""
    assert "1 value is missing" in line_chart(chart([0.0, 1.0, 100.0], is_log=True))
    assert line_chart(chart([0.0, -1.0], is_log=True)) == ""


def test_thinning_keeps_every_spike():
    """A loss spike of one step is what the reader came for."""
    x = np.arange(100_000.0)
    y = np.sin(x / 5000)
    y[77_777], y[33_333] = 50.0, -50.0
    kept_x, kept_y = thin(x, y)
    assert len(kept_x) <= 800
    assert kept_y.max() == 50.0
    assert kept_y.min() == -50.0
    assert (kept_x[0], kept_x[-1]) == (0.0, 99_999.0)
    assert (np.diff(kept_x) > 0).all()


def test_smoothing_is_the_mean_it_is_labelled_as():
    """The label says over how many steps; the curve must not invent values at gaps."""
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    assert np.array_equal(moving_mean(y, 3), [1.5, 1.5, np.nan, 4.5, 4.5], equal_nan=True)
    assert smoothing_window(10) == 1
    assert all(smoothing_window(n) % 2 == 1 for n in (80, 81, 120, 1000, 10**6))
    assert smoothing_window(10**6) <= 501


def test_columns_take_what_is_there():
    """A row from another version, or null, must not end the report."""
    values = column([{"a": 1}, {}, {"a": None}, {"a": "x"}, {"a": True}, {"a": 2.5}], "a")
    assert np.array_equal(values, [1, *[np.nan] * 4, 2.5], equal_nan=True)
    assert len(finite_runs(np.arange(6.0), values)) == 2


def test_labels_do_not_overlap():
    """Two numbers printed over each other are neither."""
    for places in ([50, 50, 50], [99, 100, 98], [0, 0], [10, 90]):
        result = sorted(spread(places, 14, 0, 100))
        assert all(b - a >= 14 - 1e-9 for a, b in pairwise(result))
        assert result[-1] <= 100
    assert spread([10, 90], 14, 0, 100) == [10, 90]


def test_marks_outside_the_curve_are_left_out():
    """A checkpoint of an undone attempt must not stand beside the plot."""
    html = line_chart(
        chart([1.0, 2.0, 3.0], marks=[Mark(2, "death", "died"), Mark(9, "checkpoint", "later")])
    )
    assert len(Elements(html).of_class("mark", "death")) == 1
    assert not Elements(html).of_class("mark", "checkpoint")


def test_all_text_is_escaped():
    """Labels come from configurations and file names; markup in them must stay text."""
    bad = '<script>"&'
    html = line_chart(
        Chart(
            bad,
            bad,
            [Series(bad, np.arange(2.0), np.arange(2.0)), Series(bad, np.arange(2.0), np.arange(2.0))],
            [Mark(1, "death", bad)],
            [(bad, 1.0)],
            note=bad,
            x_name=bad,
        )
    ) + bar_chart(bad, bad, [Bar(bad, 1.0)], bad)
    scripts = [a for tag, a in Elements(html).found if tag == "script"]
    assert scripts == [{"type": "application/json"}]
    data = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert data is not None
    assert json.loads(data[1])["x"] == bad


def test_bars_are_drawn_from_zero():
    """Bars that start elsewhere exaggerate differences."""
    html = bar_chart("b", "u", [Bar("ours", 1.0, 0.5, 2.0, is_ours=True), Bar("gzip", 4.0)])
    widths = [a["width"] for tag, a in Elements(html).found if tag == "rect"]
    assert widths == ["25.00%", "100.00%"]


def test_numbers_are_short():
    """Labels have room for seven characters."""
    numbers = (0, 1, 2.34567, 0.000123, 1e-9, 12_345, 3.3e9, float("nan"))
    assert [value_label(v) for v in numbers] == [
        "0",
        "1",
        "2.346",
        "1.23e-4",
        "1e-9",
        "12.3k",
        "3.3B",
        "not a number",
    ]


@pytest.mark.parametrize(("name", "inside"), [("step", False), ("confidence", True)])
def test_long_names_of_axes_stay_inside_the_plot(name, inside):
    """Such as "confidence", they would run over the first tick and out of its card."""
    html = line_chart(chart([1.0, 2.0, 3.0], x_name=name))
    [text] = Elements(html).of_class("tick", "name")
    assert (text["x"] == "100%") == inside


def test_points_on_logarithmic_axes_are_where_their_values_say():
    """A power law would be no straight line, and what is pointed at another point."""
    x = np.array([1e6, 1e7, 1e8])
    series = [Series("runs", x, 3 * x**-0.5, "validation", "points"), Series("law", x, 3 * x**-0.5, "train")]
    html = line_chart(Chart("Law", "nats", series, x_name="N", is_log=True, is_log_x=True, height=100))
    circles = [
        (float(str(a["cx"])[:-1]), float(str(a["cy"]))) for tag, a in Elements(html).found if tag == "circle"
    ]
    assert len(circles) == 3
    (x_1, y_1), (x_2, y_2), (x_3, y_3) = circles
    assert x_2 - x_1 == pytest.approx(x_3 - x_2, abs=0.02)
    assert y_2 - y_1 == pytest.approx(y_3 - y_2, abs=0.2)
    assert y_3 > y_1 > 0
    shown = json.loads(html.split('<script type="application/json">')[1].split("</script>")[0])
    assert shown["is_log"] is True
    assert shown["low"] < 1e6 < 1e8 < shown["high"]
    assert ">1M<" in html


def test_a_logarithmic_axis_within_a_decade_has_ticks():
    """Losses of 2.2 to 3.4 would stand beside a 2 and a 5, with the plot half empty."""
    axis = log_axis(2.2, 3.4, tight=True)
    assert 2.1 < axis.low < 2.2 < 3.4 < axis.high < 3.6
    assert len(axis.ticks) >= 3
    assert value_label(1e18) == "1e18"
