"""Sums by the recipes that ship: fine-tuning, then GRPO from being told which are right, for each seed."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rl_bench.runs import seedbed

from seedbed.statistics import mean_interval

SEEDS, PROMPTS, ANSWERS = 5, 200, 4


def run(quick: bool) -> dict[str, Any]:
    """Shares of answers to prompts that nothing learned from that are right, before and after."""
    seeds = []
    for seed in range(1 if quick else SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            seeds.append(_seed(Path(folder), seed, ["--set", "run.steps=20"] if quick else []))
    gains = [found["after"] - found["before"] for found in seeds]
    result: dict[str, Any] = {"seeds": seeds, "median_after": statistics.median(s["after"] for s in seeds)}
    if len(gains) > 1:
        found = mean_interval(gains)
        result["gain"] = {name: round(getattr(found, name), 4) for name in ("value", "low", "high")}
    return result


def _seed(folder: Path, seed: int, steps: list[str]) -> dict[str, Any]:
    common = ["--set", f"run.seed={seed}", "--set", "tracking.mlflow=false", *steps]
    started = time.perf_counter()
    seedbed(folder, "data", "exercise", "arithmetic", "--seed", str(seed))
    seedbed(folder, "train", "arithmetic-sft", "--run-dir", "before", *common)
    seedbed(folder, "train", "grpo-arithmetic", "--init-from", "before", "--run-dir", "after", *common)
    took_s = time.perf_counter() - started
    data = str(_dataset(folder / "after"))
    return {"seed": seed, "took_s": round(took_s, 1)} | {
        name: right(folder, folder / name, data, ("accuracy",))["accuracy"] for name in ("before", "after")
    }


def _dataset(run: Path) -> Path:
    from training.checkpoint.models import load_model

    return Path(load_model(run).dataset_path)


def right(folder: Path, run: Path, data: str, rules: tuple[str, ...]) -> dict[str, float]:
    """By rule, the share of answers to held-out prompts that keep it; one that does not end keeps none."""
    asked = ["--data", data, "--split", "holdout", "--prompts", str(PROMPTS), "--answers", str(ANSWERS)]
    asked += [word for rule in rules for word in ("--rule", rule)]
    asked += ["--max-new-tokens", "48"]
    out = ["--as", "best", "--temperature", "1", "--out", str(folder / f"{run.name}.jsonl")]
    found = seedbed(folder, "data", "judge", str(run), *asked, *out, "--json")
    return {
        name: round(share * found["judged"] / found["answers"], 4) for name, share in found["rules"].items()
    }
