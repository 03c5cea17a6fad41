"""What an ensemble of reward models is worth when a quarter of the comparisons is wrong.

    python -P benchmarks/reward_noise.py [--work DIR] [--quick] [--out FILE]

Protocol, fixed before the runs that are reported.

- The policy is `sft-demo` begun from `gpt-demo`, both as they ship. It answers 400 prompts of its training
  functions four times each, at temperature 0.8; the checker's best and worst answer make a comparison.
- For each of five seeds a quarter of the comparisons, drawn by the seed, has its sides exchanged, and three
  reward models (`rm-demo` as it ships, begun from the policy) learn from them. They differ by `run.seed`:
  first head, order of data. Their temperature, centering and l2 are the recipe's.
- The policy answers 120 held-out prompts 16 times. Prompts whose answers the checker finds all alike are left
  out, and answers with the same text count once. From each pool the answer with the highest reward is taken:
  by each member alone, and by the three together as mean, worst case, and mean less 0.5 variances; each
  member is first brought to mean 0 and variance 1 over all answers.
- Reported, in points of the checker (0 to 4): the score of what is taken, by way and seed; of an answer
  drawn at random, and of the best in the pool. The effect of an ensemble is its score less the mean score
  of its members, by seed; its mean over the seeds with a 95 % interval (Student's t, 4 degrees of freedom).
  Nothing is required of it.

With --work, finished runs are taken up again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEEDS, MEMBERS, FLIPPED = range(5), 3, 0.25
WAYS = ("mean", "worst", "penalised")
T_4 = 2.776
"""Of Student's t with 4 degrees of freedom, at 0.975."""


def main() -> None:
    """Run the protocol and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="where runs are kept; a temporary folder without")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that everything works")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import machine

    with tempfile.TemporaryDirectory() as temporary:
        found = study(asked.work or Path(temporary), asked.quick)
    text = json.dumps({"quick": asked.quick, "machine": machine(), **found}, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def study(work: Path, quick: bool) -> dict[str, Any]:
    """All runs, and what they show."""
    few = ["run.steps=20", "eval.every_steps=0"] if quick else []
    work.mkdir(parents=True, exist_ok=True)
    policy = trained("sft-demo", work / "sft", few, trained("gpt-demo", work / "gpt", few))
    prompts, answers = (20, 4) if quick else (120, 16)
    comparisons = answered(policy, work / "comparisons.jsonl", "train", 40 if quick else 400, 4, "preference")
    pools = answered(policy, work / "pools.jsonl", "holdout", prompts, answers, "ranking")
    sequences, scores = encoded(policy, pools)
    by_seed = []
    for seed in list(SEEDS)[: 2 if quick else None]:
        source = flipped(comparisons, work / f"flipped-{seed}.jsonl", seed)
        members = [
            trained(
                "rm-demo",
                work / f"rm-{seed}-{member}",
                [f'data.source="{source}"', f"run.seed={MEMBERS * seed + member}", *few],
                policy,
            )
            for member in range(MEMBERS)
        ]
        by_seed.append(taken(members, sequences, scores))
        print(json.dumps({"seed": seed, **by_seed[-1]}), file=sys.stderr)
    effects = {way: [one[way] - one["members"] for one in by_seed] for way in WAYS}
    return {
        "comparisons": len(comparisons),
        "pools": len(pools),
        "answers": sum(map(len, scores)),
        "at random": float(np.mean([pool.mean() for pool in scores])),
        "best in the pool": float(np.mean([pool.max() for pool in scores])),
        "by seed": by_seed,
        "effect": {way: interval(values) for way, values in effects.items()},
    }


def trained(recipe: str, run: Path, assignments: list[str], init_from: Path | None = None) -> Path:
    """A run of a recipe that has finished."""
    seedbed = Path(sys.executable).with_name("seedbed")
    state = json.loads((run / "status.json").read_text())["state"] if (run / "status.json").exists() else ""
    if state != "finished":
        sets = ["tracking.mlflow=false", *assignments]
        command = [str(seedbed), "train", recipe, "--run-dir", str(run)]
        command += [part for one in sets for part in ("--set", one)]
        command += ["--init-from", str(init_from)] if init_from else []
        print(f"== {run.name}", file=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return run


def answered(
    policy: Path, out: Path, split: str, prompts: int, answers: int, form: str
) -> list[dict[str, Any]]:
    """Rows of the policy's own answers, judged by the checker."""
    from training.rewards.comparisons import Sampling, compare

    if not out.exists():
        compare(policy, out, Sampling(split, prompts, answers), form=form)
    return [json.loads(line) for line in out.read_text().splitlines()]


def flipped(rows: list[dict[str, Any]], out: Path, seed: int) -> Path:
    """The comparisons with a share of them turned round."""
    from seedbed.randomness import generator

    turned = generator(seed, "flips").random(len(rows)) < FLIPPED
    with out.open("w") as file:
        for row, turn in zip(rows, turned, strict=True):
            sides = {"chosen": row["rejected"], "rejected": row["chosen"]} if turn else {}
            file.write(json.dumps({**row, **sides}) + "\n")
    return out.resolve()


def encoded(
    policy: Path, pools: list[dict[str, Any]]
) -> tuple[list[list[NDArray[np.int64]]], list[NDArray[np.float64]]]:
    """Of each pool the answers as ids, behind their prompt, and the checker's scores."""
    from data.examples.encoding import ChatEncoder
    from data.examples.messages import candidates_of
    from data.examples.templates import Template
    from data.tokenizers import load_tokenizer
    from training.checkpoint.models import load_model

    tokenizer = load_tokenizer(load_model(policy).tokenizer_path)
    encoder = ChatEncoder(tokenizer, Template.load("plain", tokenizer))
    sequences, scores = [], []
    for pool in pools:
        answers = candidates_of({name: pool[name] for name in ("prompt", "responses")}, "ranking")
        sequences.append(
            [np.array(encoder.encode(answer).tokens, dtype=np.int64) for answer in answers.conversations]
        )
        scores.append(np.array(pool["scores"], dtype=np.float64))
    return sequences, scores


def taken(
    members: list[Path], sequences: list[list[NDArray[np.int64]]], scores: list[NDArray[np.float64]]
) -> dict[str, Any]:
    """The mean score of what each way takes from the pools; of the members, their mean and each."""
    from training.rewards.ensembles import combine
    from training.rewards.scoring import RewardScorer

    rewards_MN = RewardScorer(members).by_member([one for pool in sequences for one in pool])
    # Members agree on no scale.
    rewards_MN = (rewards_MN - rewards_MN.mean(1, keepdims=True)) / rewards_MN.std(1, keepdims=True)
    ends = np.cumsum([len(pool) for pool in sequences])[:-1]

    def score_of(rewards_N: NDArray[np.float64]) -> float:
        pools = zip(np.split(rewards_N, ends), scores, strict=True)
        return float(np.mean([own[int(np.argmax(rewards))] for rewards, own in pools]))

    alone = [score_of(rewards_N) for rewards_N in rewards_MN]
    together = {way: score_of(combine(rewards_MN, way)) for way in WAYS}
    return {"members": float(np.mean(alone)), "each": alone, **together}


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % interval over the seeds."""
    mean = float(np.mean(values))
    half = T_4 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


if __name__ == "__main__":
    main()
