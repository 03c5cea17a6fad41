"""Forecasts that are registered before their runs: no line can be changed, moved or dated back unseen."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from evals.scaling.ledger import read, register, score, table
from seedbed.errors import DataError, UsageError
from seedbed.files import digest_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def forecast(loss, half=0.05):
    return {"parameters": 1e9, "tokens": 2e10, "loss": loss, "run_interval": [loss - half, loss + half]}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "kept" / "forecasts.jsonl"
    for hour, loss in enumerate((2.5, 2.4, 2.3)):
        register(path, forecast(loss), name=f"run\u2028{hour}", now=NOON + timedelta(hours=hour))
    return path


def rewritten(path, change):
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


def test_what_came_of_forecasts_is_counted(book):
    """Intervals of 95 % that hold half of the time would go on being believed."""
    score(book, 1, 2.52, now=NOON + timedelta(hours=4))
    score(book, 3, 2.5, note="runs/big", now=NOON + timedelta(hours=5))
    found = table(read(book))
    assert (found["scored"], found["covered"], found["coverage"]) == (2, 1, 0.5)
    low, high = found["coverage_interval"]
    assert low < 0.5 < high
    assert [one["is_covered"] for one in found["forecasts"]] == [True, None, False]
    assert found["forecasts"][2]["relative_error"] == pytest.approx(2.3 / 2.5 - 1)
    assert found["head"] == read(book)[-1]["digest"]
    assert table([])["coverage"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [rows[0] | {"time": "2020-01-01T00:00:00Z"}, *rows[1:]],
            "line 1: its digest is another",
        ),
        (lambda rows: [rows[0], rows[1] | {"forecast": forecast(9.0)}, rows[2]], "line 2: its digest"),
        (lambda rows: [rows[0], rows[2]], "line 2: it does not follow"),
        (lambda rows: [rows[1], rows[0], rows[2]], "line 1: it does not follow"),
        (lambda rows: [*rows, ["no object"]], "line 4: no JSON object"),
    ],
)
def test_a_line_that_was_changed_is_named(book, change, message):
    """Who missed could say that another number had been forecast."""
    rewritten(book, change)
    with pytest.raises(DataError, match=message):
        read(book)
    with pytest.raises(DataError, match=message):
        register(book, forecast(2.0))


def test_a_line_made_anew_with_an_earlier_time_is_named(book):
    """The digest of a single line can be made again by anybody."""

    def earlier(rows):
        last = {key: value for key, value in rows[2].items() if key != "digest"} | {
            "time": "2020-01-01T00:00:00Z"
        }
        return [*rows[:2], last | {"digest": digest_of(last)}]

    rewritten(book, earlier)
    with pytest.raises(DataError, match="line 3: it is earlier than the line before"):
        read(book)


def test_a_file_that_was_cut_short_lacks_a_digest_that_was_kept(book):
    """A bad forecast at the end could be taken out, and the chain before it is sound."""
    head = read(book)[-1]["digest"]
    assert read(book, head)
    rewritten(book, lambda rows: rows[:2])
    assert len(read(book)) == 2
    with pytest.raises(DataError, match="rewritten or cut short"):
        read(book, head)


def test_a_clock_that_went_back_writes_nothing(book):
    """All later registrations would be refused for a line that this one had written."""
    before = book.read_bytes()
    with pytest.raises(DataError, match="the clock says 2026-03-01T11:00:00Z"):
        register(book, forecast(2.0), now=NOON - timedelta(hours=1))
    assert book.read_bytes() == before


def test_a_forecast_is_scored_once(book):
    """Of several runs the best could be chosen."""
    score(book, 2, 2.41)
    with pytest.raises(UsageError, match="scored already"):
        score(book, 2, 2.40)
    with pytest.raises(UsageError, match=r"no forecast 7\n  fix: it has 1, 2, 3"):
        score(book, 7, 2.40)
    with pytest.raises(UsageError, match="--loss -1 is no loss"):
        score(book, 1, -1)
