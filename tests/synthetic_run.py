"""A run directory in the formats that training writes, without a training run: for tests of its readers.

The run goes to step 240 of 400 in two attempts: attempt 0 reached step 130, where a worker died; attempt 1
began from the checkpoint of step 100. Its records hold what real ones can: a NaN, a missing value, a text
that is markup, a last line torn by a crash.
"""

import json
import math
from pathlib import Path
from typing import Any

from seedbed.files import append_line, write_json

BEGIN = 1_760_000_000.0
STEP_S = 6.0
HOSTILE = "<script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">"


def _time(attempt: int, step: int) -> float:
    """When a step ended: the second attempt began, at step 100, at second 790."""
    return BEGIN + step * STEP_S + (190.0 if attempt else 0.0)


def loss_at(step: int) -> float:
    """A curve of the usual form, with noise that is a function of the step."""
    return 2.1 + 6.9 * (1 + step / 6) ** -0.62 + 0.11 * math.sin(step * 12.9898) * math.sin(step * 78.233)


def train_row(attempt: int, step: int, **changes: Any) -> dict[str, Any]:
    """One step's row of metrics.jsonl."""
    row = {
        "kind": "train",
        "attempt": attempt,
        "step": step,
        "position": step * 16,
        "tokens": step * 4096,
        "time": _time(attempt, step),
        "loss": loss_at(step),
        "grad_norm": 0.35 + 14 / (1 + step) + 0.1 * math.sin(step) ** 2,
        "lr": 1e-3 * min(1.0, step / 40) * (0.55 + 0.45 * math.cos(math.pi * step / 400)),
        "step_s": STEP_S,
        "data_s": 0.01,
        "tokens_per_s": 4096 / STEP_S * (1 + 0.04 * math.sin(step * 3.1)),
        "mfu_full": 0.48,
        "mfu_causal": 0.41 + 0.01 * math.sin(step),
        "memory_bytes": 1_400_000_000 + step * 10_000,
        "goodput": 0.93,
        "epoch": step / 500,
    }
    return {**row, **changes}


def make_run(run_dir: Path) -> Path:
    """Write the run and the manifest of its dataset; returns `run_dir`."""
    for folder in ("heartbeats", "logs", "checkpoints", "evals"):
        (run_dir / folder).mkdir(parents=True)
    dataset = run_dir.parent / f"{run_dir.name}-dataset"
    dataset.mkdir()
    write_json(dataset / "manifest.json", MANIFEST)
    (run_dir / "config.toml").write_text(CONFIG.replace("DATASET", str(dataset)), encoding="utf-8")
    write_json(run_dir / "recipe.json", RECIPE)
    write_json(run_dir / "plan.json", PLAN)
    write_json(
        run_dir / "status.json", {"state": "running", "step": 240, "time": BEGIN + 1631, "message": ""}
    )
    beat = {"step": 240, "phase": "training", "time": BEGIN + 1631, "pid": 7, "rank": 0}
    write_json(run_dir / "heartbeats" / "rank-0.json", beat)
    _write_metrics(run_dir / "metrics.jsonl")
    _write_events(run_dir / "events.jsonl")
    for step, text in ((100, " return self._loop"), (200, f"\n    {HOSTILE}\n    # said the model")):
        row = {"attempt": step // 101, "step": step, "prompt": "def run(self):", "text": text}
        append_line(run_dir / "samples.jsonl", row)
    return run_dir


def _write_metrics(path: Path) -> None:
    rows = [train_row(0, step) for step in range(1, 131)]
    rows += [train_row(1, step) for step in range(101, 241)]
    rows[150]["loss"] = math.nan
    rows[151]["grad_norm"] = None
    for step in (50, 100, 150, 200):
        evaluated = {"kind": "eval", "attempt": step // 101, "step": step, "time": _time(step // 101, step)}
        evaluated |= {
            "val_loss": loss_at(step) + 0.12,
            "val_bits_per_byte": (loss_at(step) + 0.12) / 1.9,
            "eval_s": 2,
        }
        saved = {"kind": "checkpoint", "attempt": step // 101, "step": step, "time": _time(step // 101, step)}
        rows += [evaluated, {**saved, "blocked_s": 0.2, "written_s": 1.1, "bytes": 131_000_000}]
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
        file.write('{"kind":"train","attempt":1,"step":241,"los')


def _write_events(path: Path) -> None:
    def event(time: float, kind: str, message: str, **details: Any) -> None:
        append_line(path, {"time": BEGIN + time, "kind": kind, "message": message, **details})

    event(-2, "run_created", "gpt-demo in demo")
    event(-1, "session_started", "started", attempt=0)
    event(0, "attempt_started", "started from initial weights", attempt=0, from_step=0, num_ranks=2)
    event(781, "worker_died", "rank 1 was killed by SIGKILL", rank=1, code=-9, attempt=0)
    event(785, "restarted", "restarted after a worker died")
    event(790, "attempt_started", "resumed from step 100", attempt=1, from_step=100, num_ranks=2)


def evaluation(step: int = 240, **changes: Any) -> dict[str, Any]:
    """A result file of the bits-per-byte task, with baselines."""

    def baseline(name: str, label: str, value: float, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "label": label,
            "value": value,
            "low": None,
            "high": None,
            "note": "a note",
            **more,
        }

    result = {
        "format": "seedbed-eval",
        "version": 1,
        "task": "bits-per-byte",
        "step": step,
        "time": BEGIN + 1600,
        "value": 1.412,
        "low": 1.371,
        "high": 1.453,
        "documents": 61,
        "utf8_bytes": 561_000,
        "tokens": 161_000,
        "items": "5e" * 32,
        "data": {"path": "/data/stdlib", "split": "holdout", "digest": "ab" * 32},
        "by_source": {
            name: {
                "value": v,
                "low": v - 0.1,
                "high": v + 0.1,
                "documents": 9,
                "utf8_bytes": 90_000,
                "tokens": 3e4,
            }
            for name, v in ((".", 1.39), ("asyncio", 1.31), ("email", 1.52), ("idlelib", 1.66))
        },
        "baselines": [
            baseline("gzip", "gzip -9", 2.312),
            baseline("xz", "xz -9e", 2.104),
            baseline("xz-primed", "xz -9e, primed", 1.834),
            baseline("ngram", "6-gram, bytes", 2.087, low=2.02, high=2.15, train_bytes=10_600_000),
        ],
    }
    return {**result, **changes}


CONFIG = """\
[run]
name = "gpt-demo on the standard library"
seed = 0
steps = 400
[data]
path = "DATASET"
source = "stdlib"
vocab_size = 4096
[model]
family = "gpt2"
num_layers = 6
width = 320
num_heads = 5
context = 256
[batch]
tokens_per_step = 4096
micro_batch_size = 8
[optimizer]
name = "adamw"
lr = 0.001
betas = [0.9, 0.95]
[engine]
name = "fsdp"
num_ranks = 2
exact = false
"""

RECIPE = {
    "recipe": "gpt-demo",
    "overrides": ["run.steps=400", "engine.num_ranks=2"],
    "difference": {"run.steps": [1000, 400], "engine.num_ranks": [1, 2]},
    "config_hash": "c0" * 32,
    "identity_hash": "1d" * 32,
}

PLAN = {
    "parameters": {"total": 8_770_000, "non_embedding": 7_400_000},
    "flops_per_token": {"full": 56e6, "causal": 52e6},
    "total_flops": 52e6 * 400 * 4096,
    "steps": 400,
    "tokens": 400 * 4096,
    "tokens_per_parameter": 0.19,
    "batch": {"tokens_per_step": 4096, "samples_per_step": 16, "micro_batch_size": 8, "num_ranks": 2},
    "memory_bytes_per_device": {
        "weights": 17_000_000,
        "gradients": 35_000_000,
        "optimizer": 35_000_000,
        "activations": 700_000_000,
        "logits": 70_000_000,
        "communication": 9_000_000,
        "total": 866_000_000,
    },
    "checkpoint_bytes": 105_000_000,
    "disk_free_bytes": 53_000_000_000,
    "predicted": {"tokens_per_s": 750.0, "hours": 0.607},
    "measured": None,
}

MANIFEST = {
    "format": "seedbed-dataset",
    "version": 1,
    "tokenizer": {"file": "tokenizer.json", "fingerprint": "f1" * 32, "vocab_size": 4096, "kind": "byte-bpe"},
    "splits": {
        "train": {"documents": 1204, "tokens": 3_301_000, "utf8_bytes": 10_600_000, "shards": []},
        "holdout": {"documents": 61, "tokens": 161_000, "utf8_bytes": 561_000, "shards": []},
    },
    "drops": {"undecodable": 3, "empty": 12},
    "replaced": 0,
    "near_duplicate_groups": {"groups": 41, "documents": 97},
    "source": {"kind": "stdlib", "python": "3.11.7", "pattern": "*.py"},
    "digest": "d1" * 32,
}
