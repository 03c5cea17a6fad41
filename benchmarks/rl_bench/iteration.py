"""One PPO iteration, phase by phase."""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from data_bench.spread import spread
from rl_bench.runs import seedbed

from training.metrics import surviving_rows

RECIPE = Path(__file__).parent.parent / "train_bench" / "gpt.toml"
PROMPTS, TOKENS, EPOCHS = 64, 64, 4
PHASES = ("refresh", "rollout", "reward", "score", "advantage")


def run(quick: bool) -> dict[str, Any]:
    iterations = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        small = ["model.num_layers=1", "model.width=64", "model.num_heads=2"] if quick else []
        _policy(path, small)
        return {
            precision: _measured(path, precision, small, iterations) for precision in ("fp32", "auto")
        } | {"prompts": PROMPTS, "new_tokens": TOKENS, "epochs": EPOCHS}


def _policy(folder: Path, small: list[str]) -> None:
    """A policy that knows nothing, and prompts of about as many tokens as are to be written."""
    sets = ["run.steps=1", "batch.tokens_per_step=2048", *small]
    seedbed(folder, "train", str(RECIPE), "--run-dir", "policy", *_asked(sets))
    # Most words of the standard library are one token or two.
    words = (Path(json.__file__).parent / "decoder.py").read_text(encoding="utf-8").split()
    rows = [
        {"prompt": " ".join(words[start : start + 20]), "response": " pass"}
        for start in range(0, 20 * PROMPTS, 20)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _measured(folder: Path, precision: str, small: list[str], iterations: int) -> dict[str, Any]:
    # A step is a quarter of the answers, as PPO's mini-batches are.
    per_iteration = EPOCHS * 4
    sets = [
        *small, f"run.steps={per_iteration * (1 + iterations)}", "objective.name=ppo",
        f"engine.precision={precision}", f"rl.prompts={PROMPTS}", "rl.answers=1", f"rl.epochs={EPOCHS}",
        f"rl.max_new_tokens={TOKENS}", 'rl.rewards=["parses"]', "batch.micro_batch_size=16",
        "batch.tokens_per_step=4096", "schedule.name=constant", "engine.threads_per_rank=2",
        f'data.source="{folder / "rows.jsonl"}"', "data.format=prompt-response", "data.template=plain",
        "data.near_duplicate_threshold=0", "data.holdout_fraction=0",
    ]  # fmt: skip
    name = f"run-{precision}"
    seedbed(folder, "train", str(RECIPE), "--init-from", "policy", "--run-dir", name, *_asked(sets))
    rows = surviving_rows(folder / name)
    # The first iteration warms up.
    rollouts = [row for row in rows if row["kind"] == "rollouts"][1:]
    updates = [row for row in rows if row["kind"] == "train"][per_iteration:]
    seconds = {phase: [row[f"{phase}_s"] for row in rollouts] for phase in PHASES}
    seconds["update"] = [
        sum(row["step_s"] for row in updates[first : first + per_iteration])
        for first in range(0, len(updates), per_iteration)
    ]
    whole = [sum(values) for values in zip(*seconds.values(), strict=True)]
    return {
        "iteration_s": spread(whole),
        "share": {
            phase: round(statistics.median(values) / statistics.median(whole), 4)
            for phase, values in seconds.items()
        },
        "refresh_gb_per_s": spread([row["refreshed_bytes"] / 1e9 / row["refresh_s"] for row in rollouts]),
        "generator_apart": max(row["generator_apart"] for row in rollouts),
    }


def _asked(sets: list[str]) -> list[str]:
    return [word for one in sets for word in ("--set", one)]
