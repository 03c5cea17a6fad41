"""What a stage will take, before it starts: by what the same work took on this machine, else by arithmetic.

Of each training that was measured, `measured.jsonl` keeps the seconds until its first step and the seconds of
a step with all that belongs to it (data, saves, validation, rollouts). Another number of steps, and another
size of model or batch, follow from these.
"""

import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.pipelines.stage import Stage
from cluster.pipelines.work import Work
from cluster.ray_tokens import home
from models.families import flops_per_token
from seedbed.errors import UsageError
from seedbed.files import append_line, digest_of, read_lines
from seedbed.progress import human_bytes
from training.config import Config
from training.plan import make_plan

NEWEST = 3
"""Measurements of the same work that an estimate is the median of."""
MIN_FREE_BYTES = 64 * 2**20
"""Beside what an artefact needs: for logs and records."""
SHAPE = ("model", "batch", "engine", "objective", "rl", "optimizer")
NOT_SHAPE = {
    "lr",
    "weight_decay",
    "l1",
    "l2",
    "betas",
    "seed",
    "reference",
    "critic",
    "rewards",
    "gold",
    "teacher",
}


@dataclass(frozen=True)
class Estimate:
    """Of one stage."""

    seconds: float | None
    devices: int
    num_bytes: int
    basis: str
    """Where it is from, for a person."""

    def as_dict(self, price: float | None) -> dict[str, Any]:
        hours = None if self.seconds is None else self.seconds * self.devices / 3600
        return {
            "seconds": self.seconds,
            "devices": self.devices,
            "device_hours": hours,
            "price": None if price is None or hours is None else hours * price,
            "bytes": self.num_bytes,
            "basis": self.basis,
        }


class History:
    """What was measured on this machine."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / "measured.jsonl"
        here = machine()
        self._machines: dict[str, Any] = {}
        self.rows = [row for row in read_lines(self.path) if row.get("machine") == here]

    def add(self, work: Work, record: dict[str, Any], from_step: int = 0) -> None:
        """Keep what a stage took that was made in one go; one that was resumed tells nothing of a whole.

        A branch began at `from_step`.
        """
        if record["steps_before"] or record["attempts"] > 1 or record["result"].get("restarts"):
            return
        row: dict[str, Any] = {
            "machine": machine(),
            "work": label(work.stage),
            "shape": shape(work.stage, work.config),
            "seconds": record["seconds"],
            "bytes": record["bytes"],
            "time": record["time"],
        }
        if work.config is not None:
            causes = record["result"].get("time_by_cause") or {}
            steps = (record["result"].get("step") or 0) - from_step
            if steps <= 0 or not causes.get("wall"):
                return
            learning = causes["wall"] - causes.get("starting", 0.0)
            row |= {
                "start_s": max(0.0, record["seconds"] - learning),
                "step_s": learning / steps,
                "flops": _step_flops(_sized(work.config)),
            }
        # It is a help for estimates: a home that cannot be written must cost nothing.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, row)
        except OSError:
            return
        self.rows.append(row)

    def estimate(self, stage: Stage, config: Config | None, from_step: int = 0) -> Estimate:
        """Of a stage, whose inputs need not be there; a branch begins at `from_step`."""
        same = [row for row in self.rows if row["shape"] == shape(stage, config)][-NEWEST:]
        alike = [row for row in self.rows if row["work"] == label(stage)][-NEWEST:]
        if config is not None:
            return self._training(config, config.run.steps - from_step, same, alike)
        if same or alike:
            rows, basis = (same, "measured") if same else (alike, "measured, with other settings")
            seconds = statistics.median(row["seconds"] for row in rows)
            return Estimate(seconds, 1, int(rows[-1]["bytes"]), basis)
        return Estimate(None, 1, 0, "not measured yet")

    def _training(
        self, config: Config, steps: int, same: Sequence[dict[str, Any]], alike: Sequence[dict[str, Any]]
    ) -> Estimate:
        """Of `steps` of a configuration."""
        sized, devices = _sized(config), config.engine.num_ranks
        num_bytes = room_for(make_plan(sized, Path(".")))
        rows = same or alike
        if rows:
            start_s = statistics.median(row["start_s"] for row in rows)
            scales = [1.0 if same else _step_flops(sized) / row["flops"] for row in rows]
            step_s = statistics.median(row["step_s"] * scale for row, scale in zip(rows, scales, strict=True))
            basis = "measured" if same else "measured, with other settings, by FLOP"
            return Estimate(start_s + steps * step_s, devices, num_bytes, basis)
        hours = self._planned_hours(sized)
        if hours is None:
            return Estimate(None, devices, num_bytes, "no figures of this device")
        seconds = hours * 3600 * steps / config.run.steps
        return Estimate(seconds, devices, num_bytes, "plan arithmetic: steps alone")

    def _planned_hours(self, config: Config) -> float | None:
        """By arithmetic, with what this machine's device can do: measured once for each way to use it."""
        from training.devices import resolve_hardware
        from training.prepare import machines_at_hand

        placed = resolve_hardware(config)
        use = repr(placed.engine)
        if use not in self._machines:
            self._machines[use] = machines_at_hand(placed)
        hours = make_plan(placed, Path("."), machines=self._machines[use])["predicted"]["hours"]
        return None if hours is None else float(hours)


def machine() -> str:
    """What a measurement holds for: processor and cores; a GPU's name is part of a recipe's device."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    return f"{model} x {len(os.sched_getaffinity(0))}"


def label(stage: Stage) -> str:
    """What stages with other settings share: `train gpt-demo`, `data judge`."""
    return " ".join(word for word in stage.command[:2] if "{" not in word)


def shape(stage: Stage, config: Config | None) -> str:
    """What the time of a step, or of a command, depends on: no rates, no seeds, and not which weights."""
    if config is None:
        return digest_of([list(stage.command), stage.settings])[:16]
    sections = {name: getattr(config, name).model_dump(mode="json") for name in SHAPE}
    kept = {
        name: {field: value for field, value in fields.items() if field not in NOT_SHAPE}
        for name, fields in sections.items()
    }
    rhythm = [config.eval.every_steps, config.eval.num_samples, config.checkpoint.every_steps]
    return digest_of([stage.recipe, kept, rhythm])[:16]


def room_for(plan: dict[str, Any]) -> int:
    """Bytes that a run's checkpoints may take, with the one that is being written."""
    return int(plan["checkpoint_bytes"] * (plan["checkpoints_kept"] + 1))


def check_room(name: str, needed: int, folder: Path) -> None:
    """Raises UsageError when the disk has no room for the next stage."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed + MIN_FREE_BYTES > free:
        raise UsageError(
            f"stage '{name}' needs {human_bytes(needed + MIN_FREE_BYTES)}, and the disk of {folder} has "
            f"{human_bytes(free)} free",
            "free space, keep fewer checkpoints (checkpoint.keep), or say where there is room: --store",
        )


def _sized(config: Config) -> Config:
    """With the sizes that its data will decide, as far as the recipe tells."""
    model = config.model
    if not model.vocab_size:
        model = model.model_copy(update={"vocab_size": config.data.vocab_size})
    if getattr(model, "num_labels", None) == 0:
        model = model.model_copy(update={"num_labels": 2})
    return config.model_copy(update={"model": model})


def _step_flops(config: Config) -> float:
    return flops_per_token(config.model).causal * config.batch.tokens_per_step
