"""RandomWalks by the recipes that ship, from examples to the last policy, for each seed."""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rl_bench.runs import seedbed

from models.generation import Engine, Request, SamplingOptions
from training.checkpoint.models import load_model
from training.rl.exercises.randomwalks import optimality, tasks

SEEDS, DRAWN = 5, 16


def run(quick: bool) -> dict[str, Any]:
    seeds = []
    for seed in range(1 if quick else SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            seeds.append(_seed(Path(folder), seed, quick))
            print(seeds[-1], file=sys.stderr, flush=True)
    after = [found["after"]["drawn"] for found in seeds]
    return {"seeds": seeds, "least_after": min(after), "median_after": statistics.median(after)}


def _seed(folder: Path, seed: int, quick: bool) -> dict[str, Any]:
    steps = ["--set", "run.steps=60"] if quick else []
    common = ["--set", f"run.seed={seed}", "--set", "tracking.mlflow=false", *steps]
    started = time.perf_counter()
    seedbed(folder, "data", "exercise", "randomwalks", "--seed", str(seed))
    seedbed(folder, "train", "randomwalks-sft", "--run-dir", "walks", *common)
    learned = time.perf_counter()
    seedbed(folder, "train", "randomwalks", "--init-from", "walks", "--run-dir", "paths", *common)
    return {
        "seed": seed,
        "before": measured(folder / "walks"),
        "after": measured(folder / "paths"),
        "walks_s": round(learned - started, 1),
        "paths_s": round(time.perf_counter() - learned, 1),
    }


def measured(run: Path) -> dict[str, float]:
    """Mean optimality over all starts: of answers drawn at temperature 1, and of the likeliest."""
    from data.tokenizers import load_tokenizer

    loaded = load_model(run)
    tokenizer, engine = load_tokenizer(loaded.tokenizer_path), Engine(loaded.decoder())
    prompts = [row["prompt"] for row in tasks()]
    found = {}
    for name, temperature, count in (("drawn", 1.0, DRAWN), ("likeliest", 0.0, 1)):
        asked = [(prompt, number) for prompt in prompts for number in range(count)]
        completions = engine.complete(
            [
                Request(
                    tokenizer.encode(prompt),
                    12,
                    SamplingOptions(temperature=temperature),
                    1000 * prompts.index(prompt) + number,
                    frozenset({tokenizer.end_of_text_id}),
                )
                for prompt, number in asked
            ]
        )
        answers = [
            tokenizer.decode([id for id in done.tokens if id != tokenizer.end_of_text_id])
            for done in completions
        ]
        found[name] = round(statistics.fmean(optimality([p for p, _ in asked], answers, [])), 4)
    return found
