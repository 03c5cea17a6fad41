"""`seedbed scale fit` as a user types it: points of a law that is known, and files that are wrong."""

import json

import numpy as np
import pytest

LAW = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def write(path, rows, header="N,D,loss"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def runs(noise=0.002, sizes=(1e7, 3e7, 1e8, 3e8, 1e9), seed=0):
    random = np.random.default_rng(seed)
    for size in sizes:
        for tokens in (2e8, 1e9, 5e9, 2e10, 1e11):
            loss = LAW["E"] + LAW["A"] / size ** LAW["alpha"] + LAW["B"] / tokens ** LAW["beta"]
            yield size, tokens, loss * np.exp(noise * random.standard_normal())


def test_a_known_law_is_found_within_its_intervals(seedbed_cli, tmp_path):
    write(tmp_path / "runs.csv", runs())
    outcome = seedbed_cli("scale", "fit", "runs.csv", "--compute", "1e22", "--bootstraps", "200", "--json")
    assert outcome.code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    for name, true in LAW.items():
        low, high = found["intervals"][name]
        assert low < high
        # A little beyond, since one of five 95 % intervals may miss.
        assert low - (high - low) / 2 < true < high + (high - low) / 2, name
    (best,) = found["optima"]
    assert best["compute"] == 1e22
    assert best["parameters"] * best["tokens"] * 6 == pytest.approx(1e22, rel=1e-9)
    assert best["loss_interval"][0] < best["loss"] < best["loss_interval"][1]
    shown = seedbed_cli("scale", "fit", "runs.csv", "--bootstraps", "100")
    assert "25 points" in shown.stdout
    assert "tokens per parameter" in shown.stdout


def test_compute_may_stand_for_tokens_and_columns_may_have_any_name(seedbed_cli, tmp_path):
    write(tmp_path / "usual.csv", runs())
    rows = [(size, 6 * size * tokens, loss, "x") for size, tokens, loss in runs()]
    write(tmp_path / "other.csv", rows, header="wide,budget,end,note")
    arguments = ("--bootstraps", "100", "--json")
    usual = json.loads(seedbed_cli("scale", "fit", "usual.csv", *arguments).stdout)
    names = [part for one in ("N=wide", "C=budget", "loss=end") for part in ("--column", one)]
    other = json.loads(seedbed_cli("scale", "fit", "other.csv", *names, *arguments).stdout)
    assert other["alpha"] == pytest.approx(usual["alpha"], rel=1e-6)
    assert other["columns"] == {"N": "wide", "C": "budget", "loss": "end"}
    refused = seedbed_cli("scale", "fit", "other.csv")
    assert (refused.code, "no column for N, loss, D (or C)" in refused.stderr) == (2, True)


def test_what_points_do_not_determine_is_said(seedbed_cli, tmp_path):
    """Five numbers come out of any table."""
    rows = list(runs(noise=0.03, sizes=(1.0e8, 1.5e8, 2.0e8)))
    write(tmp_path / "narrow.csv", [*rows, rows[0]])
    found = json.loads(seedbed_cli("scale", "fit", "narrow.csv", "--bootstraps", "100", "--json").stdout)
    said = " ".join(found["warnings"])
    assert "all N lie within a factor of 2" in said
    assert "A is not determined by these points" in said
    assert "the fit ends at E = 0" in said
    assert found["intervals"]["E"][1] > 0.5
    assert "1 point(s) occur more than once" in said


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", 3, "has no rows"),
        ("N,D,loss\n", 3, "has no rows"),
        ("N,D,loss\n1e6,1e8,-2\n", 3, "line 2: loss is -2, not above 0"),
        ("N,D,loss\n1e6,0,2\n", 3, "line 2: D is 0, not above 0"),
        ("N,D,loss\n" + "1e6,1e8,3\n" * 3, 3, "3 points cannot determine the 5 parameters"),
        (
            "N,D,loss\n" + "".join(f"1e6,{d}e8,{3 - d / 10}\n" for d in range(1, 9)),
            3,
            "all points have the same N",
        ),
        ("a,b\n1,2\n", 2, "no column for N, loss, D (or C) among a, b"),
    ],
)
def test_files_that_are_wrong_say_what_is_wrong(seedbed_cli, tmp_path, content, code, words):
    (tmp_path / "runs.csv").write_text(content)
    outcome = seedbed_cli("scale", "fit", "runs.csv")
    assert (outcome.code, words in outcome.stderr) == (code, True), outcome.stderr


def test_rows_that_are_no_runs_are_listed(seedbed_cli, tmp_path):
    """A diverged run that vanished would be taken for one that was never made."""
    rows = [*runs(), (1e8, 1e9, "nan"), (1e8, "many", 3.0), (1e7, 1e8, 99.0)]
    write(tmp_path / "runs.csv", rows)
    arguments = ("--drop-highest", "1", "--bootstraps", "100", "--json")
    found = json.loads(seedbed_cli("scale", "fit", "runs.csv", *arguments).stdout)
    assert found["points"] == 25
    assert found["left_out"] == [
        "line 27: loss is no number",
        "line 28: could not convert string to float: 'many'",
        "line 29: among the highest losses",
    ]
    missing = seedbed_cli("scale", "fit", "runs.csv", "--objective", "hubert")
    assert (missing.code, "huber, squared_log, squared" in missing.stderr) == (2, True)
    assert seedbed_cli("scale", "fit", "none.csv").code == 3
