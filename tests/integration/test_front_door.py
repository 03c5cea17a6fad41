"""The command line as a user meets it: every command, in both forms, and everything that can be wrong."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_command
from training.checkpoint import layout
from training.metrics import read_events, surviving_rows

SEEDBED = str(Path(sys.executable).with_name("seedbed"))
TINY = {
    "run.steps": 6,
    "model.num_layers": 1,
    "model.width": 32,
    "model.num_heads": 2,
    "model.context": 64,
    "batch.micro_batch_size": 2,
    "batch.tokens_per_step": 256,
    "checkpoint.every_steps": 2,
    "eval.every_steps": 3,
    "eval.num_samples": 4,
    "eval.sample_tokens": 4,
    "tracking.mlflow": "false",
    "tracking.log_every": 1,
}


def sets(**changes: object) -> list[str]:
    settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished tiny run."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    command = [
        str(Path(sys.executable).with_name("seedbed")),
        "train",
        "gpt-demo",
        "--run-dir",
        str(path),
        "--json",
    ]
    outcome = run_command([*command, *sets()], timeout_s=120, cwd=path.parent)
    assert outcome.code == 0, outcome.stderr
    summary = json.loads(outcome.stdout)
    assert (summary["state"], summary["step"], summary["tokens"]) == ("finished", 6, 6 * 256)
    return path


def test_a_run_leaves_the_records_that_others_read(run):
    """Reports, trackers and tables would have nothing to read."""
    rows = surviving_rows(run)
    steps = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert all(row["tokens_per_s"] > 0 and 0 < row["mfu_causal"] < row["mfu_full"] for row in steps)
    assert [row["position"] for row in steps] == [4, 8, 12, 16, 20, 24]
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [3, 6]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    plan = json.loads((run / "plan.json").read_text())
    assert plan["measured"]["tokens_per_s"] > 0
    assert plan["measured"]["checkpoint_bytes"] == pytest.approx(plan["checkpoint_bytes"], rel=0.5)
    assert "<svg" in (run / "report.html").read_text()
    assert (run / "samples.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["plan", "gpt-demo"], "parameters"),
        (["plan", "RUN"], "measured"),
        (["checkpoint", "list", "RUN"], "checkpoints"),
        (["checkpoint", "verify", "RUN"], "checkpoints"),
        (["checkpoint", "hash", "RUN"], "hash"),
        (["checkpoint", "diff", "RUN/checkpoints/step-4", "RUN/checkpoints/step-6"], "differences"),
        (["runs", "list", "RUN/.."], "runs"),
        (["runs", "show", "RUN"], "summary"),
        (["runs", "compare", "RUN", "RUN"], "differences"),
        (["report", "RUN"], "report"),
        (["generate", "RUN", "--prompt", "def ", "--max-tokens", "5"], "text"),
        (["eval", "RUN", "--data", "TEXT"], "tasks"),
        (["data", "inspect", "DATA"], "splits"),
        (["train", "--list"], "recipes"),
    ],
)
def test_every_command_answers_in_text_and_in_json(seedbed_cli, run, tmp_path, arguments, key):
    """Scripts would parse tables, or people would read JSON."""
    text = tmp_path / "text.py"
    text.write_text("def f(x):\n    return x + 1\n" * 20)
    dataset = next(
        line for line in (run / "config.toml").read_text().splitlines() if line.startswith("path = ")
    )
    names = {"RUN": str(run), "TEXT": str(text), "DATA": json.loads(dataset.removeprefix("path = "))}
    filled = [names.get(a, a.replace("RUN", str(run))) for a in arguments]
    plain = seedbed_cli(*filled)
    assert plain.code == 0, plain.stderr
    assert plain.stdout.strip()
    machine = seedbed_cli(*filled, "--json")
    assert key in json.loads(machine.stdout)
    assert "Traceback" not in plain.stderr + machine.stderr


def test_generated_text_is_a_function_of_the_seed(seedbed_cli, run):
    command = ["generate", run, "--prompt", "import ", "--max-tokens", "8", "--json", "--seed"]
    texts = [json.loads(seedbed_cli(*command, seed).stdout)["text"] for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train"], 2, "gpt-demo"),
        (["train", "gpt-dem"], 2, "did you mean 'gpt-demo'"),
        (["train", "gpt-demo", "--fork", "x"], 2, "--resume"),
        (["train", "gpt-demo", "--resume", "RUN"], 2, "contradict"),
        (["train", "--resume", "nowhere"], 2, "nowhere"),
        (["train", "gpt-demo", "--run-dir", "x", "--set", "modle.width=4"], 2, "model.width"),
        (
            ["train", "gpt-demo", "--run-dir", "x", "--set", "model.vocab_size=100"],
            2,
            "2048 tokens of the",
        ),
        (["train", "gpt-demo", "--run-dir", "x", "--set", "engine.num_ranks=64"], 2, "micro-batch"),
        (
            ["train", "gpt-demo", "--run-dir", "x", "--set", "data.source=/no/such/folder"],
            3,
            "/no/such/folder",
        ),
        (["train", "gpt-demo", "--run-dir", "FULL"], 2, "not empty"),
        (["train", "gpt-demo", "--run-dir", "x", "--init-from", "nowhere"], 2, "nowhere"),
        (["checkpoint", "hash", "FULL"], 3, "no checkpoint"),
        (["runs", "show", "FULL"], 2, "not a run directory"),
        (["runs", "list", "nowhere"], 2, "nowhere"),
        (["eval", "RUN", "--tasks", "bits-per-bite"], 2, "bits-per-byte"),
        (["eval", "RUN", "--data", "nowhere.txt"], 2, "nowhere.txt"),
        (["generate", "RUN", "--temperature", "-1"], 2, "temperature"),
        (["data", "inspect", "FULL"], 3, "manifest.json"),
        (["data", "build", "nowhere", "--out", "y"], 3, "nowhere"),
        (["no-such-command"], 2, "no-such-command"),
    ],
)
def test_mistakes_end_in_a_named_error_and_the_right_exit_code(
    seedbed_cli, run, tmp_path, arguments, code, said
):
    """A user would be left with a traceback, and a script with the wrong exit code."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "something.txt").write_text("mine")
    names = {"RUN": str(run), "FULL": str(full)}
    outcome = seedbed_cli(*[names.get(a, a) for a in arguments])
    assert outcome.code == code, outcome.stderr
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert (full / "something.txt").read_text() == "mine"
    assert not (tmp_path / "x").exists()


def test_a_flipped_byte_in_a_shard_stops_training_before_it_is_learnt(seedbed_cli, run, tmp_path):
    """The model would be trained on garbage, silently."""
    config = (run / "config.toml").read_text()
    cached = Path(json.loads(config.split("path = ", 1)[1].splitlines()[0]))
    dataset = tmp_path / "dataset"
    shutil.copytree(cached, dataset)
    shard = dataset / "part-00000" / "train-000.tokens"
    content = bytearray(shard.read_bytes())
    # One in every few pages: which of them six steps read depends on the text of this Python.
    for place in range(0, len(content), 4096):
        content[place] ^= 1
    shard.write_bytes(content)
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "r", *sets(data__path=dataset))
    assert outcome.code == 3, outcome.stderr
    assert str(shard) in outcome.stderr
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "failed"


@pytest.mark.long
def test_numbers_that_overflow_end_with_exit_code_4_and_the_samples_named(seedbed_cli, tmp_path):
    """A run would go on with weights that are not numbers."""
    outcome = seedbed_cli(
        "train", "gpt-demo", "--run-dir", "r", *sets(optimizer__lr=1e30, optimizer__clip_norm=0)
    )
    assert outcome.code == 4, outcome.stderr
    assert "position" in outcome.stderr
    assert "lower optimizer.lr" in outcome.stderr


@pytest.mark.long
def test_training_and_sampling_need_only_the_core_packages(seedbed_cli, tmp_path):
    """A machine with a plain torch could not train."""
    allowed: set[str] = set()
    waiting = ["torch", "numpy", "safetensors", "tokenizers", "pydantic", "typer", "rich", "seedbed"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in allowed:
            continue
        allowed.add(name)
        try:
            needs = [] if name == "seedbed" else requires(name) or []
        except PackageNotFoundError:
            continue
        waiting += [_name_of(need) for need in needs if "extra ==" not in need]
    blocked = [
        module
        for module, owners in packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & allowed
    ]
    assert {"mlflow", "zstandard", "pytest"} <= set(blocked)
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        f"BLOCKED = {set(blocked)!r}\n"
        "class Without:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def __getattr__(self, name): return getattr(self.finder, name)\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] not in BLOCKED:\n"
        "            return self.finder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]\n"
    )
    env = {"PYTHONPATH": str(hook)}
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "r", *sets(tracking__mlflow="true"), env=env)
    assert outcome.code == 0, outcome.stderr
    assert "seedbed[mlflow]" in outcome.stderr, "that metrics are not mirrored is said"
    assert seedbed_cli("generate", "r", "--max-tokens", "3", env=env).code == 0


def _name_of(requirement: str) -> str:
    for index, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:index]
    return requirement


def test_installed_from_a_wheel_it_trains_in_a_folder_with_the_users_own_data_and_models(tmp_path):
    """`import data` would find the user's file, or a shipped recipe would be missing from the package."""
    python, site = sys.executable, tmp_path / "site"
    built = run_command(
        [
            python,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        timeout_s=120,
        cwd=tmp_path,
    )
    assert built.code == 0, built.stderr
    wheel = next(tmp_path.glob("seedbed-*.whl"))
    # An environment of its own, which takes the dependencies from here but not this checkout: a path
    # line does not process the .pth file of the editable install beside them.
    environment = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    own_python = environment / "bin" / "python"
    find_site = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.check_output([own_python, "-c", find_site], text=True).strip())
    here = subprocess.check_output([python, "-c", find_site], text=True).strip()
    (site / "dependencies.pth").write_text(f"{here}\n")
    install = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--ignore-installed",
        "--prefix",
        str(environment),
        str(wheel),
    ]
    installed = run_command([python, *install], timeout_s=120, cwd=tmp_path)
    assert installed.code == 0, installed.stderr
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    for name in ("data.py", "training.py", "models/__init__.py"):
        (folder / name).write_text("raise SystemExit('the user\\'s own file was imported')\n")
    script = environment / "bin" / "seedbed"
    outcome = run_command(
        [str(script), "train", "gpt-demo", "--run-dir", "r", *sets()], timeout_s=180, cwd=folder
    )
    assert outcome.code == 0, outcome.stderr
    assert layout.list_steps(folder / "r")[-1] == 6
    as_module = run_command([str(own_python), "-m", "seedbed", "runs", "show", "r"], timeout_s=60, cwd=folder)
    assert as_module.code == 0, as_module.stderr
    where = "import seedbed, data; print(seedbed.__file__, data.__file__)"
    found = subprocess.check_output([own_python, "-P", "-c", where], text=True, cwd=folder)
    assert found.count(str(environment)) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB, as a run directory's parent."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.long
@pytest.mark.root
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(small_disk):
    """Training would die of a disk that someone else filled, or leave half a checkpoint behind."""
    run = small_disk / "run"
    changes = sets(run__steps=600, checkpoint__every_steps=20, eval__every_steps=0)
    process = subprocess.Popen([SEEDBED, "train", "gpt-demo", "--run-dir", str(run), *changes])
    try:
        _wait(lambda: layout.list_steps(run), process)
        filler = fill(small_disk)
        kept, since = layout.list_steps(run), time.monotonic()
        _wait(lambda: time.monotonic() - since > 4, process)
        assert set(layout.list_steps(run)) >= set(kept[-1:]), "the previous checkpoint stays"
        assert subprocess.run([SEEDBED, "checkpoint", "verify", str(run)], check=False).returncode == 0
        filler.unlink()
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()
    assert layout.list_steps(run)[-1] == 600
    failed = [event for event in read_events(run) if event["kind"] == "checkpoint_failed"]
    assert "No space left" in failed[0]["message"]
    steps = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
    assert steps == list(range(1, 601)), "what could not be written at the time was written later"
    assert not list((run / "checkpoints").glob("*.tmp-*"))


@pytest.mark.long
@pytest.mark.root
def test_a_last_step_that_cannot_be_saved_is_not_called_finished(small_disk):
    """A script would go on to the next stage with an older model."""
    run = small_disk / "run"
    changes = sets(run__steps=400, checkpoint__every_steps=40, eval__every_steps=0)
    process = subprocess.Popen(
        [SEEDBED, "train", "gpt-demo", "--run-dir", str(run), *changes], stderr=subprocess.PIPE, text=True
    )
    try:
        _wait(lambda: layout.list_steps(run), process)
        fill(small_disk)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 4, errors
    assert "step 400 is trained but could not be saved" in errors
    assert "No space left" in errors


def _wait(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, "the run ended"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("recipe.json", b'{"identity": {}}', ("train", "--resume", "RUN")),
        ("recipe.json", b"not json", ("train", "--resume", "RUN")),
        ("config.toml", b"caf\xe9", ("train", "--resume", "RUN")),
        ("plan.json", b"", ("plan", "RUN")),
    ],
)
def test_damaged_records_of_a_run_are_named(run, tmp_path, seedbed_cli, name, content, command):
    """A traceback would leave its owner without the file's name and the way out."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / name).write_bytes(content)
    outcome = seedbed_cli(*(str(copy) if part == "RUN" else part for part in command))
    assert outcome.code in (2, 3), outcome.stderr
    assert name in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_start_that_was_killed_before_its_configuration_can_be_repeated(tmp_path, seedbed_cli):
    """An unlucky kill would cost the name of the run."""
    (tmp_path / "r" / "logs").mkdir(parents=True)
    (tmp_path / "r" / "plan.json").write_text("{}")
    (tmp_path / "r" / "recipe.json").write_text("{}")
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "r", *sets(run__steps=1))
    assert outcome.code == 0, outcome.stderr
