"""`seedbed generate` as a user meets it: one text that streams, many that come as lines, and mistakes."""

import json
from pathlib import Path

import pytest

from tests.conftest import SEEDBED, run_command

TINY = {
    "run.steps": 2,
    "model.num_layers": 1,
    "model.width": 32,
    "model.num_heads": 2,
    "model.context": 64,
    "batch.micro_batch_size": 2,
    "batch.tokens_per_step": 256,
    "checkpoint.every_steps": 2,
    "eval.every_steps": 0,
    "tracking.mlflow": "false",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A model that has learnt next to nothing."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    command = [str(SEEDBED), "train", "gpt-demo", "--run-dir", str(path), *settings]
    outcome = run_command(command, timeout_s=120, cwd=path.parent)
    assert outcome.code == 0, outcome.stderr
    return path


def lines(outcome) -> list[dict]:
    assert outcome.code == 0, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_many_texts_are_those_that_come_one_at_a_time(seedbed_cli, run, tmp_path):
    """What a batch answers could not be looked at again by itself."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "def "}\n\n"import os\\nimport "\n')
    settings = ["--max-tokens", "12", "--min-p", "0.01", "--repetition-penalty", "1.2", "--json"]
    found = lines(
        seedbed_cli("generate", run, "--prompts", file, "--num-samples", "2", "--seed", "7", *settings)
    )
    assert [(one["prompt"], one["seed"]) for one in found] == [
        ("def ", 7), ("def ", 8), ("import os\nimport ", 7), ("import os\nimport ", 8),
    ]  # fmt: skip
    alone = seedbed_cli("generate", run, "--prompt", "import os\nimport ", "--seed", "8", *settings)
    single = json.loads(alone.stdout)
    assert (single["text"], single["tokens"]) == (found[3]["text"], found[3]["tokens"])
    assert found[2]["text"] != found[3]["text"]
    assert all(one["log_prob"] < 0 for one in found)


def test_a_stop_string_ends_the_text_and_is_not_shown(seedbed_cli, run):
    settings = ["--prompt", "def ", "--max-tokens", "20", "--temperature", "1"]
    free = json.loads(seedbed_cli("generate", run, *settings, "--json").stdout)["text"]
    stop = free[5:7]
    streamed = seedbed_cli("generate", run, *settings, "--stop", stop)
    stopped = json.loads(seedbed_cli("generate", run, *settings, "--stop", stop, "--json").stdout)
    assert stopped["text"] == free[: free.index(stop)]
    assert stopped["stopped_by"] == "stop_string"
    assert streamed.stdout == "def " + stopped["text"] + "\n"


@pytest.mark.long
def test_beams_find_a_text_at_least_as_likely_as_the_greedy_one(seedbed_cli, run):
    command = ["generate", run, "--prompt", "def ", "--max-tokens", "6", "--json", "--beams"]
    one, four = (json.loads(seedbed_cli(*command, beams).stdout) for beams in ("1", "4"))
    assert four["score"] >= one["score"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--prompts", "nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["--prompts", "FILE", "--prompt", "x"], 2, "--prompts are both given"),
        (["--prompts", "FILE"], 3, "line 2 holds no prompt"),
        (["--beams", "2", "--num-samples", "2"], 2, "--beams goes with neither"),
        (["--beams", "2", "--top-k", "5"], 2, "belongs to sampling does nothing there"),
        (["--min-p", "2"], 2, "min_p"),
        (["--prompt", b"\xff\xfe".decode(errors="surrogateescape")], 3, "--prompt is not UTF-8 text"),
        (["--stop", ""], 2, "stop string is empty"),
        (["--prompt", "import os " * 200], 2, "context is 64"),
    ],
)
def test_mistakes_are_named(seedbed_cli, run, tmp_path, arguments, code, said):
    file = tmp_path / "prompts.jsonl"
    file.write_text('"fine"\n{"text": "no prompt"}\n')
    outcome = seedbed_cli("generate", run, *[str(file) if a == "FILE" else a for a in arguments])
    assert (outcome.code, "Traceback" in outcome.stderr) == (code, False), outcome.stderr
    assert said in outcome.stderr
