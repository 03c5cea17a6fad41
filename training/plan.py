"""Plan before you spend: what a configuration will need, by arithmetic, and what it did need.

Nothing here builds a model or imports torch.
"""

import shutil
from pathlib import Path
from typing import Any

from models.families import count_parameters, flops_per_token
from training.batch_layout import batch_layout
from training.config import Config
from training.memory_plan import FLOAT, memory_by_part, moments

# Share of the measured matrix-product rate that a training step reached on CPUs and GPUs of several
# kinds, eager: a starting point until this machine has been measured by a run.
TYPICAL_EFFICIENCY = 0.6


def make_plan(config: Config, run_dir: Path, *, peak_flops: float | None = None) -> dict[str, Any]:
    """`plan.json`: sizes, costs and the batch layout of `config`.

    `peak_flops` is the rate of one rank's device at the run's precision; without it no speed is
    predicted.
    """
    layout = batch_layout(config)
    count = count_parameters(config.model)
    flops = flops_per_token(config.model)
    tokens = config.run.steps * config.batch.tokens_per_step
    tokens_per_s = hours = None
    if peak_flops:
        tokens_per_s = TYPICAL_EFFICIENCY * peak_flops * config.engine.num_ranks / flops.causal
        hours = tokens / tokens_per_s / 3600
    return {
        "parameters": {
            "total": count.total,
            "active": count.active,
            "non_embedding": count.non_embedding,
        },
        "flops_per_token": {"full": flops.full, "causal": flops.causal},
        "total_flops": flops.causal * tokens,
        "steps": config.run.steps,
        "tokens": tokens,
        "tokens_per_parameter": tokens / count.total,
        "batch": {
            "tokens_per_step": config.batch.tokens_per_step,
            "samples_per_step": layout.samples_per_step,
            "micro_batch_size": layout.micro_batch_size,
            "num_micro_batches": layout.num_micro_batches,
            "num_ranks": layout.num_ranks,
            "turns_per_rank": layout.turns,
        },
        "precision": config.engine.precision,
        "device": config.engine.device,
        "memory_bytes_per_device": memory_by_part(config),
        "checkpoint_bytes": FLOAT * (count.total + moments(config)),
        "checkpoints_kept": config.checkpoint.keep + (1 if config.checkpoint.keep_best else 0),
        "disk_free_bytes": shutil.disk_usage(_existing_parent(run_dir)).free,
        "predicted": {"tokens_per_s": tokens_per_s, "hours": hours},
        "measured": None,
    }


def notices(plan: dict[str, Any]) -> list[str]:
    """What a user should know before the run starts."""
    found = list(plan.get("data", {}).get("warnings", []))
    for name, rates in plan.get("data", {}).get("packing", {}).items():
        found.append(
            f"packing cuts {rates['cut_documents']:.1%} of the documents of {name} "
            f"({rates['cut_documents_without_packing']:.1%} without), crops {rates['cropped_tokens']:.1%} "
            f"of tokens, pads {rates['padded_tokens']:.1%}"
        )
    needed = plan["checkpoint_bytes"] * (plan["checkpoints_kept"] + 1)
    if needed > plan["disk_free_bytes"]:
        found.append(
            f"checkpoints may need {needed / 1e9:.1f} GB, the disk has "
            f"{plan['disk_free_bytes'] / 1e9:.1f} GB free: lower checkpoint.keep or choose another --run-dir"
        )
    return found


def measure(plan: dict[str, Any], rows: list[dict[str, Any]], baseline_bytes: int) -> dict[str, Any]:
    """The plan with `measured` filled in from the run's surviving metrics rows.

    `baseline_bytes` is a worker's memory before the model was built; what is reported is above it.
    """
    steps = [row for row in rows if row.get("kind") == "train" and {"step_s", "memory_bytes"} <= row.keys()]
    saves = [row for row in rows if row.get("kind") == "checkpoint" and row.get("bytes")]
    if not steps:
        return plan
    seconds = sum(row["step_s"] for row in steps)
    tokens = sum(plan["batch"]["tokens_per_step"] for _ in steps)
    measured = {
        "tokens_per_s": tokens / seconds,
        "hours": seconds / 3600,
        "memory_bytes": max(row["memory_bytes"] for row in steps) - baseline_bytes,
        "checkpoint_bytes": saves[-1]["bytes"] if saves else None,
    }
    return {**plan, "measured": measured}


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
