"""Plan before you spend: what a configuration will need, by arithmetic, and what it did need.

Nothing here builds a model or imports torch.
"""

import shutil
from pathlib import Path
from typing import Any

from models.families import count_parameters, flops_per_token
from seedbed.errors import ConfigError
from seedbed.progress import human_bytes
from training.batch_layout import batch_layout
from training.config import Config
from training.layout_search import Layout, Machines, assignments, every_engine_and_policy, search
from training.memory_plan import FLOAT, checkpoint_bytes_of_rank, memory_by_part, moments
from training.save_interval import LEAST_COST_S, effective_share, young_daly_s
from training.speed_plan import step_time
from training.zero_settings import zero_settings

DEVICE_HOURS_PER_FAILURE = 50_677
"""419 unexpected interruptions of 16,384 H100 in 54 days (Dubey et al. 2024, "The Llama 3 Herd of Models",
section 3.3.4): what a mean time to failure is taken from unless one is given."""
RESTART_S = 300.0
"""From a failure to the next step, assumed: noticing, starting processes, reading a checkpoint."""


def make_plan(
    config: Config,
    run_dir: Path,
    *,
    machines: Machines | None = None,
    price_per_device_hour: float | None = None,
    mttf_h: float | None = None,
) -> dict[str, Any]:
    """`plan.json`: sizes, costs and the batch layout of `config`.

    Without `machines` no speed is predicted. `mttf_h` is the mean time to failure of all machines together,
    in hours; unless given it is the configuration's, or what others have published. Raises ConfigError when
    no layout makes the batch, or `engine.deepspeed` contradicts another field.
    """
    layout = batch_layout(config)
    if config.engine.traits.is_zero:
        zero_settings(config)
    count = count_parameters(config.model)
    flops = flops_per_token(config.model)
    tokens = config.run.steps * config.batch.tokens_per_step
    memory = memory_by_part(config)
    plan: dict[str, Any] = {
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
        "memory_bytes_per_device": memory,
        "checkpoint_copy_bytes": checkpoint_bytes_of_rank(config),
        "checkpoint_bytes": FLOAT * (count.total + moments(config)),
        "checkpoints_kept": config.checkpoint.keep + (1 if config.checkpoint.keep_best else 0),
        "disk_free_bytes": shutil.disk_usage(_existing_parent(run_dir)).free,
        "predicted": {"tokens_per_s": None, "hours": None},
        "measured": None,
    }
    if machines:
        plan |= _on(config, machines, memory["total"], price_per_device_hour, mttf_h)
    return plan


def _on(
    config: Config, machines: Machines, total_bytes: int, price: float | None, mttf_h: float | None
) -> dict[str, Any]:
    """What depends on the devices: speed, time, price, saves, and whether memory suffices."""
    device, ranks, workers = machines.device, config.engine.num_ranks, config.num_workers
    step = step_time(config, device, machines.per_node)
    flops = flops_per_token(config.model)
    each = config.batch.tokens_per_step / step.total_s / ranks
    hours = config.run.steps * step.total_s / 3600
    peak = device.peak_flops(config.engine.precision)
    return {
        "machines": {
            "name": device.name,
            "devices": workers,
            "nodes": -(-workers // machines.per_node),
            "peak_flops": peak,
            **{
                name: getattr(device, name)
                for name in (
                    "memory_bytes",
                    "memory_bytes_per_s",
                    "link_bytes_per_s",
                    "network_bytes_per_s",
                    "source",
                )
            },
        },
        "fits": total_bytes <= device.memory_bytes,
        "step": step.record(),
        "tokens_per_s_per_device": each,
        "mfu_full": each * flops.full / peak,
        "mfu_causal": each * flops.causal / peak,
        "hours": hours,
        "device_hours": hours * workers,
        "price": None if price is None else hours * workers * price,
        "predicted": {"tokens_per_s": each * ranks, "hours": hours},
        "saves": _saves(config, machines, step.total_s, hours, mttf_h),
    }


def _saves(
    config: Config, machines: Machines, step_s: float, hours: float, mttf_h: float | None
) -> dict[str, Any]:
    """How often to save, and what failures leave of the time."""
    mttf_h = mttf_h or config.checkpoint.mttf_h or DEVICE_HOURS_PER_FAILURE / config.engine.num_ranks
    # A save stops the training while tensors are copied to the host's memory, and no longer.
    cost_s = max(LEAST_COST_S, checkpoint_bytes_of_rank(config) / machines.device.host_bytes_per_s)
    num_steps = max(1, round(young_daly_s(cost_s, mttf_h * 3600) / step_s))
    share = effective_share(num_steps * step_s, cost_s, RESTART_S, mttf_h * 3600)
    return {
        "mttf_h": mttf_h,
        "cost_s": cost_s,
        "restart_s": RESTART_S,
        "suggested_every_steps": num_steps,
        "suggested_every_s": num_steps * step_s,
        "effective_share": share,
        "wall_hours": hours / share if share else None,
    }


def layouts(config: Config, machines: Machines) -> list[dict[str, Any]]:
    """Every engine with every checkpointing policy: memory, whether it fits, speed."""
    return [layout.record() for layout in every_engine_and_policy(config, machines)]


def proposals(config: Config, machines: Machines, most: int = 5) -> list[dict[str, Any]]:
    """The fastest layouts that fit. Raises ConfigError when none does."""
    return [layout.record() for layout in search(config, machines)[:most]]


def refusal(config: Config, machines: Machines) -> ConfigError | None:
    """Why the layout of `config` cannot run, with one that can; None when it fits."""
    total = memory_by_part(config)["total"]
    device = machines.device
    if total <= device.memory_bytes:
        return None
    what = (
        f"{human_bytes(total)} per device do not fit {human_bytes(device.memory_bytes)} of one {device.name}"
    )
    try:
        best: Layout = search(config, machines)[0]
    except ConfigError as error:
        return ConfigError(what, f"{error.message}; {error.fix}")
    return ConfigError(
        what,
        f"this fits, in {human_bytes(best.total_bytes)}, at {best.tokens_per_s:,.0f} tokens/s: "
        f"{assignments(best.settings)}",
    )


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
    `relative_errors` are those of the prediction: 0.1 is a tenth too high.
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
    predicted = {
        "tokens_per_s": plan["predicted"]["tokens_per_s"],
        "memory_bytes": plan["memory_bytes_per_device"]["total"],
        "checkpoint_bytes": plan["checkpoint_bytes"],
    }
    errors = {
        name: predicted[name] / measured[name] - 1
        for name in predicted
        if predicted[name] and (measured[name] or 0) > 0
    }
    return {**plan, "measured": {**measured, "relative_errors": errors}}


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
