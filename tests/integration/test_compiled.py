"""Compiled blocks: told when they cannot be; in exact mode, one set of weights on all layouts."""

import json

import pytest

from tests.integration.engine_runs import digest, train

SMALL = {
    "model.num_layers": 1, "model.width": 32, "model.num_heads": 2, "model.context": 16,
    "batch.micro_batch_size": 2, "batch.tokens_per_step": 64, "run.steps": 3, "eval.every_steps": 0,
    "tracking.mlflow": "false",
}  # fmt: skip


@pytest.mark.long
def test_without_a_compiler_a_run_goes_on_eagerly_and_says_so_once(tmp_path, seedbed_cli):
    """A missing compiler on one machine would end the run, or slow it down without a word."""
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    environment = {"CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    sets += ["--set", "engine.compile=true"]
    run = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets, env=environment)
    assert run.code == 0, run.stderr
    assert run.stderr.count("blocks run eagerly, since they cannot be compiled") == 1
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [(event["step"], event["ranks"]) for event in events if event["kind"] == "not_compiled"] == [
        (1, 2)
    ]


@pytest.mark.long
def test_ranks_and_engines_do_not_change_a_bit_of_a_compiled_run(tmp_path, monkeypatch):
    """And neither does recomputation."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    layouts = [("fsdp", 1, "none"), ("ddp", 1, "none"), ("ddp", 2, "none"), ("fsdp", 2, "full")]
    runs = {
        (engine, ranks, checkpointing): train(
            tmp_path / f"{engine}-{ranks}-{checkpointing}",
            engine,
            ranks,
            steps=3,
            exact=True,
            compile=True,
            checkpointing=checkpointing,
        )
        for engine, ranks, checkpointing in layouts
    }
    assert len({digest(folder) for folder in runs.values()}) == 1
