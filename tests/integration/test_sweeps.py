"""Sweeps: points are runs; what is done is not run again, what diverged or failed is told."""

import csv
import json

import pytest

from cluster.sweeps.points import Halving, parse_sweep
from seedbed.errors import ConfigError
from tests.pipeline_runs import SMALL, Front, until
from training.checkpoint.layout import list_steps
from training.metrics import read_events, surviving_rows

pytestmark = pytest.mark.timeout(900)

COMMON = {
    **SMALL,
    "data": {"source": "texts", "vocab_size": 300, "holdout_fraction": 0.2, "near_duplicate_threshold": 0},
    "run": {"steps": 6},
}


def lines(tables: dict) -> str:
    """TOML of {section: {field: value}}."""
    return "\n".join(
        f"{section}.{field} = {json.dumps(value)}"
        for section, fields in tables.items()
        for field, value in fields.items()
    )


def sweep(points: str, **changes: dict) -> str:
    common = {section: {**COMMON.get(section, {}), **changes.get(section, {})} for section in COMMON}
    return f'recipe = "gpt-demo"\n{points}\n[set]\n{lines(common)}\n'


@pytest.fixture
def front(tmp_path):
    here = Front(tmp_path)
    yield here
    assert here.processes() == []


def test_points_are_what_the_file_says():
    """A user would pay for other points than were asked for."""
    base = {"recipe": "gpt-demo"}
    grid = parse_sweep({**base, "grid": {"optimizer": {"lr": [1, 2]}, "model": {"width": [8, 16, 32]}}}, "s")
    assert len(grid.points) == 6
    assert grid.points["p1"] == {"optimizer.lr": 1, "model.width": 8}
    axis = {"optimizer": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}}
    few = parse_sweep({**base, "random": {"count": 3, **axis}}, "s").points
    more = {"count": 40, "model": {"width": {"choices": [8]}}, **axis}
    many = parse_sweep({**base, "random": more}, "s").points
    assert [few[f"p{n}"]["optimizer.lr"] for n in (1, 2, 3)] == [
        many[f"p{n:02}"]["optimizer.lr"] for n in (1, 2, 3)
    ]
    assert all(1e-4 <= point["optimizer.lr"] <= 1e-2 for point in many.values())
    assert sum(point["optimizer.lr"] < 1e-3 for point in many.values()) in range(12, 29)
    assert Halving(50, 3).rungs(450) == [50, 150, 450]
    for wrong in (
        {"grid": {"optimizer": {"lr": 3}}},
        {"grid": {"optimizer": {"lr": [1]}}, "random": {"count": 1}},
        {"random": {"count": 1, "optimizer": {"lr": {"low": 2, "high": 1}}}},
        {"point": [{"run": {"seed": 1}}, {"run": {"seed": 1}}]},
        {"point": [{"run": {"seed": 1}}], "set": {"run": {"seed": 2}}},
        {"point": [{"run": {"seed": 1}}], "halvings": {}},
        {},
    ):
        with pytest.raises(ConfigError):
            parse_sweep({**base, **wrong}, "s")


@pytest.mark.long
def test_a_sweep_of_three_goes_on_and_fits(front):
    """A user would train points again that are done, or have a table that nothing reads."""
    path = front.write(
        "s.toml", sweep("[grid]\nmodel.width = [32, 48, 37]").replace("\nmodel.width = 32", "")
    )
    planned = front.json("sweep", path, "--dry-run", "--price", "3")
    assert planned["cost"]["points"] == 3
    assert [point["state"] for point in planned["points"]] == ["waiting", "waiting", "failed"]
    assert planned["cost"]["price"] == pytest.approx(3 * planned["cost"]["device_hours"])
    value = front.json("sweep", path, "--at-once", "2", code=1)
    assert value["made"] == ["p1", "p2"]
    done = [point for point in value["points"] if point["state"] == "done"]
    assert [point["model.width"] for point in done] == [32, 48]
    assert [point["D"] for point in done] == [6 * 256] * 2
    assert done[0]["N"] < done[1]["N"]
    again = front.json("sweep", path, code=1)
    assert again["made"] == []
    assert "37" in again["points"][2]["message"]
    rows = list(csv.DictReader((front.folder / "runs" / "s" / "table.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    assert float(rows[1]["loss"]) == done[1]["loss"] > 0
    assert rows[2]["loss"] == ""
    from evals.scaling.tables import read_points

    table = read_points(front.folder / "runs" / "s" / "table.csv")
    assert table.columns == {"N": "N", "D": "D", "loss": "loss"}
    assert (len(table.points.losses), len(table.left_out)) == (2, 1)
    shown = front("sweep", path)
    assert shown.code == 1
    assert "failed" in shown.stdout


@pytest.mark.long
def test_twelve_points_one_diverges_one_fails_and_the_driver_dies(front):
    """The night before a deadline: finished points are not paid for twice, and the two are told by name."""
    rates = ["1e-4", "2e-4", "4e-4", "8e-4", "1e-3", "2e-3", "3e-3", "4e-3", "5e-3", "1e-2"]
    points = "".join(f"[[point]]\noptimizer.lr = {rate}\n" for rate in rates)
    points += '[[point]]\noptimizer.lr = 1e6\noptimizer.clip_norm = 0.0\n[[point]]\ndata.source = "nowhere"\n'
    common = {"data": {}}
    text = sweep(points, **common).replace('data.source = "texts"\n', "")
    text = text.replace("optimizer.lr = ", 'data.source = "texts"\noptimizer.lr = ')
    path = front.write("s.toml", text)
    driver = front.start("sweep", path, "--at-once", "2", "--json")
    done = lambda: sorted(front.folder.glob("artefacts/*/done.json"))  # noqa: E731
    until(lambda: len(done()) >= 5)
    driver.kill()
    driver.wait()
    finished = {file: file.stat().st_mtime_ns for file in done()}
    value = front.json("sweep", path, "--at-once", "2", code=1, timeout_s=900)
    states = [point["state"] for point in value["points"]]
    assert states == ["done"] * 10 + ["diverged", "failed"]
    assert "nowhere" in value["points"][11]["message"]
    assert {file: file.stat().st_mtime_ns for file in done() if file in finished} == finished
    for point in value["points"][:10]:
        sessions = [e for e in read_events(front.folder / point["run"]) if e.get("kind") == "session_started"]
        assert len(sessions) <= 2
        steps = [r["step"] for r in surviving_rows(front.folder / point["run"]) if r["kind"] == "train"]
        assert steps == list(range(1, 7))
        last = [r for r in surviving_rows(front.folder / point["run"]) if r["kind"] == "eval"][-1]
        assert point["loss"] == last["val_loss"]
    rows = list(csv.DictReader((front.folder / "runs" / "s" / "table.csv").read_text().splitlines()))
    assert [row["loss"] != "" for row in rows] == [True] * 10 + [False] * 2
    assert front.json("sweep", path, code=1)["made"] == []


@pytest.mark.long
def test_halving_ends_in_the_run_that_a_whole_sweep_makes(front):
    """What a user ships would be another model than the one whose settings were chosen."""
    text = sweep("[grid]\noptimizer.lr = [1e-5, 1e-4, 1e-3, 4e-3]", run={"steps": 8}, eval={"every_steps": 2})
    path = front.write("s.toml", text + "[halving]\nfirst = 2\nfactor = 2\n")
    planned = front.json("sweep", path, "--dry-run")
    assert planned["cost"]["rungs"] == [
        {"steps": 2, "points": 4}, {"steps": 4, "points": 2}, {"steps": 8, "points": 1},
    ]  # fmt: skip
    value = front.json("sweep", path, "--at-once", "2")
    assert sorted(point["steps"] for point in value["points"]) == [2, 2, 4, 8]
    best = next(point for point in value["points"] if point["steps"] == 8)
    assert best["state"] == "done"
    assert front.json("sweep", path)["made"] == []
    changes = {"run": {"steps": 8}, "eval": {"every_steps": 2}}
    whole = front.write("w.toml", sweep(f"[[point]]\noptimizer.lr = {best['optimizer.lr']}", **changes))
    alone = front.json("sweep", whole, "--store", front.folder / "artefacts-too")
    hashes = [
        front.json("checkpoint", "hash", "--optimizer", point["run"])["hash"]
        for point in (best, alone["points"][0])
    ]
    assert hashes[0] == hashes[1]
    assert list_steps(front.folder / best["run"])[-1] == 8


@pytest.mark.long
def test_points_on_ray_are_those_of_a_laptop(front):
    """A sweep that was tried out at home would choose other settings on the cluster."""
    path = front.write("s.toml", sweep("[grid]\noptimizer.lr = [1e-4, 1e-3, 4e-3]"))
    here = front.json("sweep", path, "--at-once", "2")
    up = front.json("cluster", "up", "--num-cpus", "2")
    assert up["started"], up
    try:
        driver = front.start(
            "sweep", path, "--on", "ray", "--store", front.folder / "artefacts-ray", "--json"
        )
        until(lambda: list(front.folder.glob("artefacts-ray/train-*/done.json")))
        # Points are in the cluster's queue: they go on without the sweep, and the next one waits for them.
        front.kill_all(driver)
        there = front.json("sweep", path, "--on", "ray", "--store", front.folder / "artefacts-ray")
    finally:
        front("cluster", "down", "--now")
    assert [point["state"] for point in there["points"]] == ["done"] * 3
    assert [point["loss"] for point in there["points"]] == [point["loss"] for point in here["points"]]
    for one, other in zip(here["points"], there["points"], strict=True):
        runs = (front.folder / one["run"], front.folder / other["run"])
        assert len({front.json("checkpoint", "hash", "--optimizer", run)["hash"] for run in runs}) == 1


@pytest.mark.long
def test_mlflow_has_a_sweep_with_its_points(front):
    """A user would look for a sweep among the runs of all others, and for its best model among files."""
    from mlflow.tracking import MlflowClient

    path = front.write("s.toml", sweep("[grid]\noptimizer.lr = [1e-4, 4e-3]"))
    uri = f"sqlite:///{front.folder / 'm.db'}"
    value = front.json("sweep", path, "--at-once", "2", "--mlflow", uri)
    best = min(value["points"], key=lambda point: point["loss"])
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("seedbed").experiment_id])
    parent = next(run for run in found if run.data.tags.get("seedbed.programme") == "sweep")
    assert "table.csv" in [file.path for file in client.list_artifacts(parent.info.run_id)]
    own = {
        run.data.tags["seedbed.stage"]: run
        for run in found
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert {name: run.data.params["optimizer.lr"] for name, run in own.items()} == {
        "p1": "0.0001",
        "p2": "0.004",
    }
    (version,) = client.search_model_versions("name = 's.best'")
    assert version.run_id == own[best["point"]].info.run_id
