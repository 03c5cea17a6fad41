"""Pipelines: what is done is skipped, what changed is made again, what was killed goes on, once for all."""

import json
import os
import time
from pathlib import Path

import pytest

from cluster.pipelines import read_tables, shipped
from cluster.pipelines.driver import Driver
from cluster.pipelines.graph import parse
from cluster.pipelines.lineage import chain_of
from cluster.pipelines.store import Place
from cluster.pipelines.work import config_of
from cluster.sweeps.points import parse_sweep
from cluster.sweeps.runner import SweepRunner
from seedbed.errors import ConfigError
from tests.pipeline_runs import PATIENCE_S, SHARDS, SMALL, Front, made, stage_of, toml_of, until
from training.checkpoint.layout import list_steps
from training.metrics import read_events, surviving_rows

pytestmark = pytest.mark.timeout(900)

TRAINED = f"""
{SHARDS}
[stage.gpt]
command = "train gpt-demo --run-dir {{out}}"
{toml_of(SMALL)}
"""
WITHOUT_TRAINING = f"""
{SHARDS}
[stage.look]
command = "data inspect {{shards}}"

[stage.other]
command = "data build {{texts}} --out {{out}}"
set.data.vocab_size = 280
set.data.near_duplicate_threshold = 0

[stage.look-again]
command = "data inspect {{other}} --samples 1"
"""


@pytest.fixture
def front(tmp_path):
    here = Front(tmp_path)
    yield here
    assert here.processes() == []


def test_only_what_changed_and_what_depends_on_it_is_made_again(front):
    """A user who changes a setting would pay for all stages again, or get results of the old one."""
    path = front.write("p.toml", WITHOUT_TRAINING)
    planned = front.json("pipeline", path, "--dry-run")
    assert [stage["plan"] for stage in planned["stages"]][:2] == ["to be made", "to be made, after shards"]
    assert not (front.folder / "artefacts" / "x").exists()
    assert not (front.folder / "runs").exists()
    first = front.json("pipeline", path)
    assert made(first) == ["shards", "look", "other", "look-again"]
    report = json.loads((front.folder / "runs" / "p" / "look").read_text())
    assert report["digest"] == stage_of(first, "shards")["digest"]
    assert made(front.json("pipeline", path)) == []
    changed = ("--set", "other.data.vocab_size=270")
    planned = front.json("pipeline", path, "--dry-run", *changed)
    assert [stage["plan"] for stage in planned["stages"]] == [
        "done before", "done before", "to be made", "to be made, after other",
    ]  # fmt: skip
    assert made(front.json("pipeline", path, *changed)) == ["other", "look-again"]
    assert made(front.json("pipeline", path, "--set", "look-again.samples=2")) == ["look-again"]
    assert made(front.json("pipeline", path)) == []
    # An input that changed changes all that is made of it; the same bytes again are the same input.
    text = front.folder / "texts" / "3.txt"
    before = text.read_text()
    text.write_text(before + " and more")
    assert made(front.json("pipeline", path)) == ["shards", "look", "other", "look-again"]
    text.write_text(before)
    assert made(front.json("pipeline", path)) == []


TRAIN = '[stage.a]\ncommand = "train gpt-demo --run-dir {out}"\n'
BUILD = '[stage.{}]\ncommand = "data build {} --out {}"\n'
CYCLE = "".join(
    f'[stage.{name}]\ncommand = "export {{{of}}} {{out}}"\n'
    for name, of in (("a", "b"), ("b", "c"), ("c", "a"))
)
REFUSED = {
    "a cycle": (CYCLE, "a cycle: a -> b -> c -> a"),
    "an unknown recipe": (TRAIN.replace("demo", "demmo"), "did you mean 'gpt-demo'"),
    "an unknown setting": (TRAIN + "set.run.stepps = 3\n", "stage 'a': gpt-demo: unknown key 'run.stepps'"),
    "an unknown artefact": (
        SHARDS + '[stage.a]\ncommand = "data inspect {shardz}"\n',
        "did you mean '{shards}'",
    ),
    "an unknown command": ('[stage.a]\ncommand = "data bild {out}"\n', "did you mean `data build`"),
    "an unknown option": (BUILD.format("a", "x", "{out}") + "set.wokers = 2\n", "did you mean --workers"),
    "a file that is a path": (TRAIN + 'file = "a/b"\n', "a.file = 'a/b' is no plain name"),
    "no such input": (
        '[inputs]\nx = "nowhere"\n' + BUILD.format("a", "{x}", "{out}"),
        "the input 'x' is not at nowhere",
    ),
    "the same work twice": (
        BUILD.format("a", "texts", "{out}") + BUILD.format("b", "texts", "{out}"),
        "'a' and 'b' do the same, and would write one place",
    ),
    "one place twice": (
        BUILD.format("a", "x", "here") + BUILD.format("b", "y", "here"),
        "the stages 'a' and 'b' both write here",
    ),
    "no space": (
        TRAIN + "set.model.width = 65536\nset.model.num_layers = 300\nset.model.num_heads = 64\n",
        "stage 'a' needs",
    ),
}


VARIED = """
[stage.shards]
command = "data build stdlib --out {out}"

[stage.gpt]
command = "train gpt-demo --run-dir {out}"
set.data.path = "{shards}"
set.run.steps = 3

[stage.score]
command = "eval {gpt}"

[stage.both]
command = "scale by-size {score*} {shards*} --out {out}"

[variant.small]
gpt.model = { width = 64 }
score.limit = 5

[variant.large]
gpt.model.width = 128
gpt.run.steps = 9
"""


def test_variants_are_stages_once_more_and_the_rest_is_made_once():
    """Shards would be built for every size, or a page be of one size alone."""
    import tomllib

    tables = tomllib.loads(VARIED)
    stages = parse(tables, "p", ["gpt.run.steps=4", "gpt-small.optimizer.lr=1e-3"]).stages
    assert sorted(stages) == sorted(
        ["shards", "gpt-small", "gpt-large", "score-small", "score-large", "both"]
    )
    small, large = stages["gpt-small"], stages["gpt-large"]
    assert small.settings == {
        "data.path": "{shards}", "run.steps": 4, "model.width": 64, "optimizer.lr": 1e-3,
    }  # fmt: skip
    # What is set by hand goes before what the file says.
    assert large.settings == {"data.path": "{shards}", "run.steps": 4, "model.width": 128}
    assert parse(tables, "p").stages["gpt-large"].settings["run.steps"] == 9
    assert stages["score-large"].command == ("eval", "{gpt-large}")
    assert stages["score-small"].settings == {"limit": 5}
    assert stages["both"].inputs == ["score-small", "score-large", "shards"]
    wrong = [
        ({"small": {"gtp": {"run": {"steps": 1}}}}, "did you mean 'gpt'"),
        ({"small": 3}, "is a table"),
        ({"Small": {}}, "cannot be a variant's name"),
    ]
    for variants, words in wrong:
        with pytest.raises(ConfigError) as refused:
            parse({**tables, "variant": variants}, "p")
        assert words in f"{refused.value.message} {refused.value.fix}"
    # Of variants that set nothing there is nothing to copy.
    assert list(parse({**tables, "variant": {"one": {}}}, "p").stages) == ["shards", "gpt", "score", "both"]
    build = {"command": "data build stdlib --out {out}"}
    taken = {**tables["stage"], "gpt-small": build}
    with pytest.raises(ConfigError, match="'gpt-small' is a stage, and a variant of one"):
        parse({**tables, "stage": taken}, "p")
    doubled = {"rm": build, "rm-half": {"command": "data build {texts} --out {out}"}}
    both = {variant: {"rm": {"workers": 1}, "rm-half": {"workers": 2}} for variant in ("x", "half-x")}
    with pytest.raises(ConfigError, match="'rm-half-x' is a stage, and a variant of one, or of two"):
        parse({"inputs": {"texts": "t"}, "stage": doubled, "variant": both}, "p")
    with pytest.raises(ConfigError, match="'gpt-small' is an input and a stage"):
        parse({**tables, "inputs": {"gpt-small": "here"}}, "p")
    for command, words in (("eval x{score*}", "within something else"), ("eval {scores*}", "of no stage")):
        gathering = {**tables["stage"], "both": {"command": command}}
        with pytest.raises(ConfigError, match=words):
            parse({**tables, "stage": gathering}, "p")


@pytest.mark.parametrize("name", shipped())
def test_what_ships_can_be_planned(tmp_path, name):
    """A user's first pipeline would end in a complaint about a file that is ours."""
    driver = Driver(parse(read_tables(name), name), tmp_path / "out", tmp_path / "store")
    driver.look()
    assert driver.pipeline.description
    for stage in driver.pipeline.stages.values():
        config = config_of(stage, dict.fromkeys([*stage.inputs, "out"], "0"))
        assert (config is not None) == (stage.command[0] == "train")


@pytest.mark.parametrize("name", shipped("cluster.sweeps"))
def test_sweeps_that_ship_can_be_planned(tmp_path, name):
    """As above."""
    sweep = parse_sweep(read_tables(name, "cluster.sweeps"), name)
    runner = SweepRunner(sweep, tmp_path / "out", tmp_path / "store")
    runner.driver.look()
    assert sweep.description
    assert {progress.state for progress in runner.driver.stages.values()} == {"waiting"}
    assert runner.rungs()[-1][0] == runner.steps


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_a_pipeline_is_refused_before_it_starts(front, kind):
    """A user would learn of a slip in the last stage after the days that the first ones take."""
    text, said = REFUSED[kind]
    with front.inside() as call:
        outcome = call("pipeline", front.write("p.toml", text))
    assert (outcome.exit_code, said in outcome.stderr) == (2, True), outcome.stderr
    assert not list((front.folder / "artefacts").glob("*/out"))


def test_artefacts_that_were_touched_are_not_taken(front):
    """A user would get results of data that somebody edited, under the name of the data that were built."""
    path = front.write("p.toml", WITHOUT_TRAINING)
    first = front.json("pipeline", path)
    shards = Path(stage_of(first, "shards")["out"])
    tokens = next(file for file in sorted(shards.rglob("*")) if file.suffix == ".tokens")
    raw = bytearray(tokens.read_bytes())
    os.utime(tokens)
    assert made(front.json("pipeline", path)) == []
    raw[0] ^= 1
    tokens.write_bytes(raw)
    said = front.refused("pipeline", path)
    assert "the artefact of stage 'shards' is damaged" in said
    assert "--redo shards" in said
    # It comes out the same, so nothing that was made of it is made again.
    assert made(front.json("pipeline", path, "--redo", "shards")) == ["shards"]
    (Path(stage_of(first, "look-again")["out"])).unlink()
    assert "the artefact of stage 'look-again' is gone" in front.refused("pipeline", path)
    assert made(front.json("pipeline", path, "--redo", "look-again")) == ["look-again"]
    # Whoever makes it has its place: what is there stays until he is done.
    shards = stage_of(front.json("pipeline", path), "shards")
    held = Place(Path(shards["place"]), "out").try_lock("another pipeline")
    waiting = front.start("pipeline", path, "--redo", "shards")
    until(lambda: "being made by" in waiting.said.read_text())
    assert Path(shards["out"]).exists()
    # Nor do two write one record.
    assert "is in use by another run" in front.refused("pipeline", path)
    held.close()
    assert waiting.wait(PATIENCE_S) == 0


def test_what_a_crash_left_half_written_is_no_artefact(front):
    """The next stage would be made of half a file."""
    path = front.write("p.toml", WITHOUT_TRAINING)
    first = front.json("pipeline", path)
    for name in ("look", "other"):
        place = Path(stage_of(first, name)["place"])
        (place / "done.json").unlink()
    look = Path(stage_of(first, "look")["out"])
    whole = look.read_bytes()
    look.write_bytes(whole[: len(whole) // 2])
    again = front.json("pipeline", path)
    assert made(again) == ["look", "other"]
    assert look.read_bytes() == whole
    assert stage_of(again, "other")["digest"] == stage_of(first, "other")["digest"]


def test_a_stage_that_writes_nothing_is_a_mistake(front):
    """The next stage would fail of a file that is not there, and its user would look for the fault in it."""
    text = SHARDS + '[stage.quiet]\ncommand = "data drops {shards}"\n'
    text += '[stage.next]\ncommand = "data build {quiet} --out {out}"\n'
    said = front.refused("pipeline", front.write("p.toml", text))
    assert "stage 'quiet' ended well and wrote nothing" in said
    assert "next:" not in said
    assert json.loads((front.folder / "runs" / "p" / "pipeline.json").read_text())["state"] == "failed"


def test_a_stage_that_two_pipelines_share_is_made_once(front):
    """Two users of one folder would pay twice, or write into each other's files."""
    (front.folder / "texts" / "long.txt").write_text(" ".join(f"word{i % 977}" for i in range(400_000)))
    one = front.write("one.toml", SHARDS)
    two = front.write("two.toml", SHARDS + '[stage.look]\ncommand = "data inspect {shards}"\n')
    drivers = [front.start("pipeline", path, "--json") for path in (one, two)]
    assert [driver.wait(PATIENCE_S) for driver in drivers] == [0, 0]
    said = [driver.said.read_text() for driver in drivers]
    assert sum("seedbed data build" in text for text in said) == 1
    assert sum("it is being made by process" in text for text in said) == 1
    assert len(list((front.folder / "artefacts").glob("data-build-*"))) == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The small pipeline, undisturbed: its folder and what it said."""
    here = Front(tmp_path_factory.mktemp("whole"))
    return here, here.json("pipeline", here.write("p.toml", TRAINED))


def test_everything_killed_in_mid_stage_goes_on_at_its_step(front):
    """A user would lose the hours since the stage began, or be given what a crash left."""
    path = front.write("p.toml", TRAINED)
    slower = ("--set", "gpt.run.steps=200")
    driver = front.start("pipeline", path, *slower)
    until(lambda: any(len(list_steps(out)) > 1 for out in front.folder.glob("artefacts/train-*/out")))
    front.kill_all(driver)
    run = next(front.folder.glob("artefacts/train-*/out"))
    step = max(list_steps(run))
    assert 0 < step < 200
    assert "to be gone on with" in str(front.json("pipeline", path, "--dry-run", *slower))
    value = front.json("pipeline", path, *slower)
    assert made(value) == ["gpt"]
    starts = [event["from_step"] for event in read_events(run) if event.get("kind") == "attempt_started"]
    assert len(starts) == 2
    assert starts[1] >= step - 2 > 0
    steps = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
    assert steps == list(range(1, 201))
    assert stage_of(value, "gpt")["result"]["state"] == "finished"


@pytest.mark.long
def test_estimates_are_what_was_measured(trained):
    """A user plans money by them; before anything was measured, they are arithmetic and say so."""
    here, first = trained
    gpt = stage_of(first, "gpt")
    assert "arithmetic" in gpt["estimate"]["basis"]
    # Another seed: the same work, not yet done.
    path = here.folder / "p.toml"
    planned = here.json("pipeline", path, "--dry-run", "--price", "2", "--set", "gpt.run.seed=1")
    estimate = stage_of(planned, "gpt")["estimate"]
    assert estimate["basis"] == "measured"
    assert estimate["device_hours"] == pytest.approx(gpt["device_hours"], rel=0.01)
    assert estimate["price"] == pytest.approx(2 * estimate["device_hours"])
    assert planned["total"]["price"] == pytest.approx(estimate["price"])
    longer = here.json("pipeline", path, "--dry-run", "--set", "gpt.run.steps=80")
    assert stage_of(longer, "gpt")["estimate"]["seconds"] > estimate["seconds"]


@pytest.mark.long
def test_a_stop_saves_and_what_fails_is_tried_again(front):
    """Ctrl-C in the tenth hour of a stage would cost ten hours; a worker's mishap the whole night."""
    text = TRAINED.replace('command = "train', 'retries = 1\ncommand = "train')
    path = front.write("p.toml", text)
    slower = ("--set", "gpt.run.steps=4000", "--set", "gpt.checkpoint.every_steps=2000")
    driver = front.start("pipeline", path, *slower)
    until(lambda: any("seedbed train" in line for line in driver.said.read_text().splitlines()))
    run_lock = front.folder / "artefacts"
    until(lambda: list(run_lock.glob("train-*/out/metrics.jsonl")))
    trainer = int(next(run_lock.glob("train-*/out/run.lock")).read_text())
    os.kill(trainer, 9)
    until(lambda: "killed by signal SIGKILL; trying again (1 of 1)" in driver.said.read_text())
    events = next(run_lock.glob("train-*/out"))
    until(lambda: sum(e.get("kind") == "attempt_started" for e in read_events(events)) == 2)
    time.sleep(0.5)
    driver.terminate()
    assert driver.wait(PATIENCE_S) == 5
    assert "stopped in gpt" in driver.said.read_text()
    assert list_steps(events)


CHAIN = f"""
{TRAINED}
[stage.tuned]
command = "train gpt-demo --init-from {{gpt}} --run-dir {{out}}"
{toml_of({**SMALL, "run": {"steps": 4, "seed": 1}})}

[stage.score]
command = "eval {{tuned}}"
"""


def children(client, experiment: str) -> tuple[dict, dict]:
    """(the parent run, its children by stage) in an experiment."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    own = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(own) == len(found) - 1
    assert len({run.data.tags["seedbed.stage"] for run in own}) == len(own)
    return parents[0], {run.data.tags["seedbed.stage"]: run for run in own}


def check_copy(front, uri: str, value: dict) -> None:
    """A parent, children, curves, reports, checkpoints, and models whose lineage ends in the data."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    parent, own = children(client, "tests")
    assert (parent.info.status, parent.data.tags["seedbed.programme"]) == ("FINISHED", "pipeline")
    assert "report.html" in [file.path for file in client.list_artifacts(parent.info.run_id)]
    assert set(own) == {"shards", "gpt", "tuned", "score"}
    assert {run.info.status for run in own.values()} == {"FINISHED"}
    for name, steps in (("gpt", 8), ("tuned", 4)):
        run = own[name]
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.step for metric in history] == list(range(1, steps + 1))
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert sorted(files) == ["checkpoint", "report.html"]
        assert run.data.tags["seedbed.digest"] == stage_of(value, name)["digest"]
    assert any("bits-per-byte" in key for key in own["score"].data.metrics)
    versions = client.search_model_versions("name = 'p.tuned'")
    assert [version.run_id for version in versions] == [own["tuned"].info.run_id]
    asked = front.json("runs", "lineage", "p.tuned", "--uri", uri)["lineage"]
    assert [entry["stage"] for entry in asked] == ["tuned", "gpt", "shards", "texts"]
    assert asked[0]["inputs"]["gpt"] == asked[1]["digest"] == stage_of(value, "gpt")["digest"]
    assert asked[0]["data"] == asked[1]["data"] == asked[2]["digest"] == stage_of(value, "shards")["digest"]
    assert front.json("runs", "lineage", front.folder / "runs" / "p" / "tuned")["lineage"] == asked


@pytest.mark.long
def test_mlflow_has_the_pipeline_in_a_file(front):
    """Of a model in the registry nobody could say what it learnt from."""
    path = front.write("p.toml", CHAIN)
    uri = f"sqlite:///{front.folder / 'm.db'}"
    value = front.json("pipeline", path, "--mlflow", uri, "--experiment", "tests")
    check_copy(front, uri, value)
    # Once more, with nothing to do: neither a second parent nor a second version.
    front.json("pipeline", path, "--mlflow", uri, "--experiment", "tests")
    check_copy(front, uri, value)


@pytest.mark.long
def test_mlflow_may_be_down_for_the_middle_third(front, tmp_path):
    """A tracking server's outage would stop a pipeline, or leave a hole in what it tells."""
    from tests.mlflow_server import Server

    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    server.start()
    try:
        path = front.write("p.toml", CHAIN)
        driver = front.start("pipeline", path, "--mlflow", server.uri, "--experiment", "tests", "--json")
        until(lambda: list(front.folder.glob("artefacts/train-*/out/metrics.jsonl")))
        server.kill()
        until(lambda: len(list(front.folder.glob("artefacts/train-*/done.json"))) == 2)
        server.start()
        assert driver.wait(PATIENCE_S) == 0
        said = driver.said.read_text()
        value = json.loads(said[said.index('{\n  "pipeline"') :])
        check_copy(front, server.uri, value)
    finally:
        server.kill()


@pytest.mark.long
def test_the_same_pipeline_on_ray_makes_the_same_weights(front, trained):
    """What was tried out at home would be another model on the cluster, and be paid for again there."""
    path = front.write("p.toml", CHAIN)
    up = front.json("cluster", "up", "--num-cpus", "2")
    assert up["started"], up
    try:
        driver = front.start("pipeline", path, "--on", "ray", "--json")
        until(lambda: list(front.folder.glob("artefacts/train-*/out/metrics.jsonl")))
        # The run is the cluster's: it goes on without the driver, and the next one waits for it.
        front.kill_all(driver)
        on_ray = front.json("pipeline", path, "--on", "ray")
    finally:
        front("cluster", "down", "--now")
    here, first = trained
    assert stage_of(first, "gpt")["digest"] == stage_of(on_ray, "gpt")["digest"]
    runs = [stage_of(on_ray, "gpt")["out"], stage_of(first, "gpt")["out"]]
    hashes = {here.json("checkpoint", "hash", "--optimizer", run)["hash"] for run in runs}
    assert len(hashes) == 1
    # A store that the cluster filled is one that a laptop goes on with.
    assert made(front.json("pipeline", path)) == []


def test_a_stage_that_learnt_nothing_does_not_end_the_lineage(tmp_path):
    """Two artefacts of one content would be taken for one, and all that the first is made of be lost."""

    def place(name: str, inputs: dict[str, Path]) -> Path:
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        made_of = {key: {"path": str(path), "digest": "same", "key": ""} for key, path in inputs.items()}
        record = {"stage": name, "kind": "folder", "digest": "same", "command": ["x"], "inputs": made_of}
        (out.parent / "done.json").write_text(json.dumps(record))
        return out

    shards = place("shards", {"texts": tmp_path})
    tuned = place("tuned", {"gpt": place("gpt", {"shards": shards}), "shards": shards})
    assert [entry["stage"] for entry in chain_of(tuned)] == ["tuned", "gpt", "shards", "texts"]
