"""`seedbed demo`: the whole path on one machine, with a worker killed on the way.

Standard library -> tokenizer and shards -> a GPT on two processes -> bits per byte on held-out files,
beside compressors and an n-gram model on the very same bytes -> a sample -> a report.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.output import note
from cluster.runner import announce, run_supervised
from data.tokenizers import load_tokenizer
from evals.report import write_report
from evals.results import evaluate
from models.generation import SamplingOptions, generate
from training import prepare
from training.checkpoint.layout import list_steps
from training.checkpoint.models import load_model
from training.launch import Worker
from training.run_directory import TERMINAL_STATES, RunDirectory, read_json
from training.supervisor import Supervisor

RECIPE = "gpt-demo"
PROMPT = 'def load_settings(path):\n    """Read'


def run_demo(out: Path, assignments: Sequence[str]) -> dict[str, Any]:
    """Run the demonstration in a new folder of `out`, or finish the one that was interrupted there."""
    started = time.monotonic()
    path = _run_path(out)
    with RunDirectory(path).lock() as lock:
        note("text, tokenizer and shards: this Python's own standard library")
        run, notices = prepare.start(RECIPE, assignments, path)
        announce(run, notices)
        supervisor = Supervisor(run, lock)
        killer = Killer(run)
        supervisor.on_poll = killer
        summary = run_supervised(supervisor, run)
    note("scoring the held-out files, and the baselines on the same bytes")
    result = evaluate(path, ["bits-per-byte"], with_baselines=True)["tasks"]["bits-per-byte"]
    rows = [
        {"name": "this GPT", **_score(result)},
        *({"name": r["label"], **_score(r)} for r in result["baselines"]),
    ]
    return {
        "run": str(path),
        "documents": result["documents"],
        "utf8_bytes": result["utf8_bytes"],
        "table": sorted(rows, key=lambda row: row["bits_per_byte"]),
        "killed": killer.killed or "none",
        "restarts": summary["restarts"],
        "goodput": summary["goodput"],
        "sample": PROMPT + _sample(path),
        "plan": summary["plan"],
        "report": str(write_report(path)),
        "seconds": time.monotonic() - started,
    }


class Killer:
    """Kills the last worker once, with SIGKILL, when the run has something to lose and to recover."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.killed = ""
        self._at_step = run.config().run.steps // 3

    def __call__(self, workers: list[Worker]) -> None:
        if self.killed or not list_steps(self.run.path):
            return
        step = read_json(self.run.heartbeat_path(0)).get("step", 0)
        pid = getattr(workers[-1], "pid", None)
        if step >= self._at_step and pid is not None and workers[-1].poll() is None:
            self.killed = f"{workers[-1].name} (process {pid}) at step {step}, by SIGKILL"
            note(f"! the demonstration kills {self.killed}")
            os.kill(pid, signal.SIGKILL)


def _run_path(out: Path) -> Path:
    """The newest run of `out` that has not ended, or the name of a new one."""
    existing = sorted(out.glob("run-*/config.toml"), key=lambda path: path.stat().st_mtime)
    if existing:
        newest = existing[-1].parent
        if RunDirectory(newest).status()["state"] not in TERMINAL_STATES:
            return newest
    number = 1
    while (out / f"run-{number}").exists():
        number += 1
    return out / f"run-{number}"


def _score(result: dict[str, Any]) -> dict[str, Any]:
    return {"bits_per_byte": result["value"], "low": result["low"], "high": result["high"]}


def _sample(path: Path) -> str:
    loaded = load_model(path)
    tokenizer = load_tokenizer(loaded.tokenizer_path)
    options = SamplingOptions(temperature=0.7, top_p=0.95)
    tokens = generate(
        loaded.decoder(),
        tokenizer.encode(PROMPT),
        max_new_tokens=96,
        options=options,
        stop_id=tokenizer.end_of_text_id,
    )
    return tokenizer.decode(list(tokens))
