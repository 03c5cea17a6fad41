"""Ladders: trunks and branches are trained, a law is fitted, what is held out is forecast before it runs."""

import csv
import json
from datetime import datetime

import pytest

from evals.scaling import ledger
from evals.scaling.design import Grid, check
from seedbed.errors import UsageError
from tests.pipeline_runs import Front, until
from training.checkpoint.layout import list_steps, resolve
from training.checkpoint.reader import Checkpoint
from training.metrics import surviving_rows
from training.run_directory import read_json

pytestmark = pytest.mark.timeout(900)

LADDER = """
recipe = "gpt-demo"
parameters = [7e3, 1.4e4, 2.6e4]
tokens = [1024, 2048, 4096]
hold_out = 5.0e8
[set]
data.source = "texts"
data.vocab_size = 300
data.holdout_fraction = 0.2
data.near_duplicate_threshold = 0
model.num_layers = 1
model.width = 32
model.num_heads = 4
model.context = 64
batch.micro_batch_size = 2
batch.tokens_per_step = 256
eval.num_samples = 4
engine.num_ranks = 1
engine.exact = true
"""


@pytest.fixture
def front(tmp_path):
    here = Front(tmp_path)
    yield here
    assert here.processes() == []


def held_out(value):
    return [cell for cell in value["cells"] if cell["held_out"]]


def test_a_ladder_is_priced_and_refused_before_anything_is_trained(front):
    """A ladder of which nothing can be fitted, or nothing is forecast, would be paid for first."""
    path = front.write("l.toml", LADDER)
    planned = front.json("scale", "run", path, "--dry-run", "--price", "3")
    assert [cell["state"] for cell in planned["cells"]] == ["waiting"] * 9
    assert 1 <= len(held_out(planned)) <= 3
    assert planned["cost"]["flops"] < sum(cell["C"] for cell in planned["cells"])
    assert planned["cost"]["price"] == pytest.approx(3 * planned["cost"]["device_hours"])
    assert not (front.folder / "artefacts").exists()
    wrong = front.write("w.toml", LADDER.replace("hold_out", "holdout"))
    no_list = front.write("n.toml", LADDER.replace("tokens = [1024, 2048, 4096]", "tokens = 2048"))
    front.write("d.json", '{"trunks": []}')
    front.write("old.json", '{"trunks": [{"cells": []}]}')

    def of(old: str, new: str):
        assert old in LADDER
        return front.write(f"{len(list(front.folder.iterdir()))}.toml", LADDER.replace(old, new))

    with front.inside() as call:
        for arguments, words in (
            ((path, "--hold-out", "1e20"), "of 9 cells take more than"),
            ((path, "--hold-out", "1"), "of 9 cells take more than"),
            ((wrong,), "did you mean 'hold_out'"),
            ((no_list,), "give a list of numbers"),
            ((of("hold_out = 5.0e8", 'hold_out = "5e12"'),), "give a number"),
            ((of("hold_out = 5.0e8", 'mup = "no"'),), "give true or false"),
            ((of("hold_out = 5.0e8", "span = 3"),), "span is of budgets"),
            ((of("[set]", "[set]\nseed = 3"),), "settings stand as section.field"),
            ((of("[set]", "[set]\nschedule.decay_share = 0.5"),), "decides schedule.decay_share"),
            ((of("1.4e4", "7.1e3"),), "3 sizes are but 2 of the ladder's"),
            ((of("2048, 4096", "1025, 4096"),), "differ by less than a step"),
            (("d.json",), "is no design of a ladder"),
            (("old.json",), "is of another version"),
            (("scale-dem",), "no ladder named 'scale-dem'"),
        ):
            outcome = call("scale", "run", *arguments)
            assert (outcome.exit_code, words in outcome.output) == (2, True), outcome.output
        planned = ("--tokens", "4e6", "--size", "1e6", "--out", "p.json")
        assert call("scale", "plan", "gpt-demo", *planned).exit_code == 0
        outcome = call("scale", "run", "p.json", "--dry-run")
        assert (outcome.exit_code, "waiting" in outcome.output) == (0, True), outcome.output
        design = json.loads((front.folder / "p.json").read_text())
        design["trunks"][0]["cells"][0]["flops"] = 1.0
        front.write("p.json", json.dumps(design))
        assert "was changed after it was planned" in call("scale", "run", "p.json", "--dry-run").output
        front.write("no.toml", LADDER.replace('"gpt-demo"', '"nope.toml"'))
        assert call("scale", "run", "no.toml").exit_code == 2
    for grid in (Grid(tokens=(1e6,)), Grid(budgets=(1e9,), tokens=(1e6,), parameters=(1e6,)), Grid((-1.0,))):
        with pytest.raises(UsageError):
            check(grid)


@pytest.mark.long
def test_forecasts_stand_before_the_runs_that_they_are_of(front):
    """A forecast of what is known already proves nothing; a killed ladder would be paid for twice."""
    path = front.write("l.toml", LADDER)
    driver = front.start("scale", "run", path, "--at-once", "2", "--mlflow", "none")
    until(lambda: len(list(front.folder.glob("artefacts/train-*/done.json"))) >= 4)
    front.kill_all(driver)
    before = {file: file.stat().st_mtime_ns for file in front.folder.glob("artefacts/train-*/done.json")}
    value = front.json("scale", "run", path, "--at-once", "2", "--mlflow", "none")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert [cell["state"] for cell in value["cells"]] == ["done"] * 9
    folder = front.folder / "runs" / "l"
    lines = ledger.read(folder / "forecasts.jsonl")
    made = {line["name"]: line for line in lines if line["kind"] == "forecast"}
    assert list(made) == [cell["cell"] for cell in held_out(value)]
    assert value["forecasts"]["scored"] == len(made)
    assert len(value["made"]) == 18 - len(before)
    for cell in held_out(value):
        began = (folder / cell["cell"]).resolve() / "plan.json"
        registered = datetime.fromisoformat(made[cell["cell"]]["time"]).timestamp()
        assert registered <= began.stat().st_ctime + 1
        assert made[cell["cell"]]["forecast"]["recipe"]["points"] == 9 - len(made)
        assert made[cell["cell"]]["forecast"]["parameters"] == cell["N"]
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [cell["loss"] for cell in value["cells"]]
    assert (folder / "scaling.html").read_text().startswith("<!doctype html>")
    assert front.json("scale", "fit", folder / "table.csv", "--bootstraps", "100")["points"] == 9
    again = front.json("scale", "run", path, "--mlflow", "none")
    assert (again["made"], len(ledger.read(folder / "forecasts.jsonl"))) == ([], len(lines))
    last = value["cells"][-1]["cell"]
    assert front.json("scale", "run", path, "--mlflow", "none", "--redo", last)["made"] == [last]
    # Forecasts of other runs must not be taken for those of these.
    assert "of another ladder" in front.refused("scale", "run", path, "--set", "optimizer.lr=1e-3")
    check_trunks(front, value)


def check_trunks(front, value):
    """Cells of one size share their steps up to where they branch off; and each is whole."""
    folder = front.folder / "runs" / "l"
    for cell in value["cells"]:
        run = (folder / cell["cell"]).resolve()
        origin = read_json(run / "recipe.json")["forked_from"]
        steps = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
        assert steps == list(range(origin["step"] + 1, cell["steps"] + 1))
        assert list_steps(run)[-1] == cell["steps"]
        trunk = resolve(folder / f"{cell['cell'].split('-')[0]}-trunk{origin['step']}")
        assert Checkpoint.open(trunk).hash() == origin["hash"]
    cell = value["cells"][-1]
    # One run of the same schedule, without a trunk, ends in the same bits.
    config = (folder / cell["cell"]).resolve() / "config.toml"
    alone = front.json("train", config, "--run-dir", "alone")
    hashes = [
        front.json("checkpoint", "hash", "--optimizer", run)["hash"]
        for run in (alone["run"], folder / cell["cell"])
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.long
def test_what_was_begun_is_not_forecast(front):
    """A forecast that is made after the run is none."""
    path = front.write("l.toml", LADDER)
    whole = front.write("w.toml", LADDER.replace("hold_out = 5.0e8\n", ""))
    first = front.json("scale", "run", whole, "--mlflow", "none", "--at-once", "2")
    assert first["forecasts"] is None
    assert first["law"]
    assert any("is not determined" in told for told in first["notes"])
    late = front.json("scale", "run", path, "--mlflow", "none")
    assert (late["made"], late["forecasts"]) == ([], None)
    assert any("begun before they could be forecast" in told for told in late["notes"])


@pytest.mark.long
def test_cells_on_ray_are_those_of_a_laptop(front):
    """A law of a laptop's cells would not hold for the cluster's."""
    text = LADDER.replace("hold_out = 5.0e8\n", "").replace("[7e3, 1.4e4, 2.6e4]", "[7e3]")
    path = front.write("l.toml", text.replace("[1024, 2048, 4096]", "[1024, 2048]"))
    here = front.json("scale", "run", path, "--mlflow", "none")
    up = front.json("cluster", "up", "--num-cpus", "2")
    assert up["started"], up
    try:
        elsewhere = ("--mlflow", "none", "--store", front.folder / "artefacts-ray", "--out", "there")
        there = front.json("scale", "run", path, "--on", "ray", *elsewhere)
    finally:
        front("cluster", "down", "--now")
    assert [cell["state"] for cell in there["cells"]] == ["done"] * 2
    assert [cell["loss"] for cell in there["cells"]] == [cell["loss"] for cell in here["cells"]]


@pytest.mark.long
def test_what_diverges_is_ended_early_and_kept_out(front):
    """One bad cell would bend the law, or cost what a good one does."""
    text = LADDER.replace("hold_out = 5.0e8\n", "").replace("[set]", "[set]\noptimizer.clip_norm = 0.0")
    path = front.write("l.toml", text)
    front.json("scale", "plan", "gpt-demo", "--tokens", "4e6", "--size", "1e6", "--out", "design.json")
    design = json.loads((front.folder / "design.json").read_text())
    assert design["trunks"][0]["settings"]["guards.max_loss"] == pytest.approx(9.531)
    value = front.json(
        "scale", "run", path, "--mlflow", "none", "--set", "optimizer.lr=3e3", "--at-once", "2"
    )
    assert {cell["state"] for cell in value["cells"]} == {"diverged"}
    assert all("its trunk ended before step" in cell["message"] for cell in value["cells"])
    assert value["law"] is None
    assert any("no law" in told for told in value["notes"])
    rows = list(csv.DictReader((front.folder / "runs" / "l" / "table.csv").read_text().splitlines()))
    assert [row["loss"] for row in rows] == [""] * 9
    trained = [
        row["step"]
        for run in front.folder.glob("artefacts/train-*/out")
        for row in surviving_rows(run)
        if row["kind"] == "train"
    ]
    assert max(trained, default=0) < 20
