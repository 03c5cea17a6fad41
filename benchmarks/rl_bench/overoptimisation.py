"""What a policy comes to that is optimised against reward models, by the checker that they stand for.

Protocol, fixed before the runs that are reported. The recipes ship; what differs from them is said here.

- The chain is gpt-demo -> sft-demo -> comparisons of its answers to 2,000 prompts by the checker of Python ->
  four reward models (rm-demo), which differ by `run.seed`: first head, order of data. Each is brought to mean
  0 and variance 1 on the policy's own answers (`seedbed checkpoint normalize`).
- Gold is the checker (0 to 4 points). Three conditions learn by PPO (ppo-demo) for 56 iterations at
  optimizer.lr = 2e-4 (the recipe's is 1e-4), with rl.kl = 0.001 (0.05), and no bound on the divergence:
  `single`, reward model s alone for seed s; `worst` and `penalised`, all four put together by rl.combine. The
  critic of seed s begins as reward model s in all three. Four seeds each.
- `healthy` is ppo-demo as it ships with reward model s: four runs of 40 iterations, which the watch
  (`rl.over_optimised = "tell"`) should say nothing of.
- Curves are means of five neighbouring iterations. The iteration of a seed's peak is that at which the
  *other* seeds' mean curve is highest, so that no seed's noise chooses its own peak; `fall` is gold over the
  last five iterations less gold at the peak, by seed, with Student's 95 % interval over the seeds.
  `against_single` is gold over the last five iterations, less that of `single` of the same seed.
- The law R = R_0 + d (alpha - beta ln d) is fitted to all iterations of a condition, of gold and the reward.
- `delay` is how many iterations after the peak the watch spoke, by seed; null where it did not.
- Nothing is required of any number. If gold does not fall in `single`, that is what is reported.

The sizes were set after a pilot of ten iterations (another seed, the recipe's rate, rl.kl = 0) that measured
time, and after a look at part of one run of ppo-demo.

$SEEDBED_CHAIN may name a folder with runs/gpt, runs/sft, runs/rm (the first reward model) and
comparisons.jsonl; what it lacks is made there, and finished runs of the study are taken up again. Two runs go
at once on two cores, of one thread each.
"""

import math
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rl_bench.chain import FEW, FEW_ANSWERS, chain_of, trained
from rl_bench.runs import seedbed

from evals.scaling.overoptimisation import measure
from seedbed.errors import DataError
from seedbed.statistics import Estimate, mean_interval, share_interval
from training.metrics import read_events, surviving_rows

MEMBERS = 4
SMOOTHED = 5
OPTIMISED = ("rl.kl=0.001", "rl.max_kl=0", "optimizer.lr=2e-4", "run.steps=224")
CONDITIONS = {"single": "mean", "worst": "worst", "penalised": "penalised"}


def run(quick: bool) -> dict[str, Any]:
    """All runs, and what they show."""
    with chain_of(quick) as chain:
        study = chain / ("quick" if quick else "overoptimisation")
        study.mkdir(parents=True, exist_ok=True)
        members = _members(chain, study, 2 if quick else MEMBERS, quick)
        found = _runs(chain, study, members, 1 if quick else len(members), quick)
    return {"members": len(members), "seeds": len(found["single"])} | summarised(found)


def _members(chain: Path, study: Path, count: int, quick: bool) -> list[Path]:
    """Reward models that differ by their seed, each with mean 0 and variance 1 on the policy's answers."""
    sft, normal = chain / "runs" / "sft", []
    for seed in range(count):
        raw, out = study / f"rm-{seed}", study / f"rm-{seed}-normal"
        if seed:
            few = FEW if quick else ()
            trained(chain, "rm-demo", raw, (f"run.seed={seed}", *few), "--init-from", str(sft))
        else:
            raw = chain / "runs" / "rm"
        if not out.is_dir():
            prompts = "20" if quick else "300"
            asked = ["--policy", str(sft), "--prompts", prompts, "--out", str(out)]
            seedbed(chain, "checkpoint", "normalize", str(raw), *asked)
        normal.append(out)
    return normal


def _runs(
    chain: Path, study: Path, members: list[Path], seeds: int, quick: bool
) -> dict[str, list["Curves"]]:
    """Of each condition and seed; several at once."""
    asked: dict[tuple[str, int], tuple[str, ...]] = {}
    for seed, own in enumerate(members[:seeds]):
        common = (f"run.seed={seed}", f'rl.critic="{own}"', "engine.num_ranks=1", "engine.threads_per_rank=1")
        common += (*FEW, *FEW_ANSWERS) if quick else ()
        for name, how in CONDITIONS.items():
            models = [own] if name == "single" else members
            names = ", ".join(f'"model:{model}"' for model in models)
            optimised = OPTIMISED[:-1] if quick else OPTIMISED
            asked[name, seed] = (*common, f"rl.rewards=[{names}]", f'rl.combine="{how}"', *optimised)
        asked["healthy", seed] = (*common, f'rl.rewards=["model:{own}"]')
    sft = str(chain / "runs" / "sft")
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as threads:
        waited = {
            (name, seed): threads.submit(
                trained, chain, "ppo-demo", study / f"{name}-{seed}", settings, "--init-from", sft
            )
            for (name, seed), settings in asked.items()
        }
        finished = {key: future.result() for key, future in waited.items()}
    return {
        name: [Curves.of(finished[name, seed]) for seed in range(seeds)] for name in (*CONDITIONS, "healthy")
    }


class Curves(NamedTuple):
    """What a run measured, by iteration."""

    gold: NDArray[np.float64]
    reward: NDArray[np.float64]
    kl: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    told: int | None
    """The iteration at which a fall was told of."""

    @classmethod
    def of(cls, run: Path) -> "Curves":
        rows = [row for row in surviving_rows(run) if row["kind"] == "rollouts"]
        steps = [row["step"] for row in rows]
        events = [event["step"] for event in read_events(run) if event["kind"] == "over_optimised"]
        columns = (
            np.array([math.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
            for name in ("gold", "reward", "kl", "disagreement")
        )
        return cls(*columns, told=steps.index(events[0]) if events else None)


def summarised(found: dict[str, list[Curves]]) -> dict[str, Any]:
    """Numbers of each condition."""
    results = {name: _condition(seeds, found["single"]) for name, seeds in found.items()}
    healthy = found["healthy"]
    alarms = sum(one.told is not None for one in healthy)
    return {
        "conditions": results,
        "false_alarms": {
            "runs": len(healthy),
            "told": alarms,
            "share": _json(share_interval(alarms, len(healthy))),
        },
    }


def _condition(seeds: list[Curves], single: list[Curves]) -> dict[str, Any]:
    peaks = peak_iterations([one.gold for one in seeds])
    ends = [float(one.gold[-SMOOTHED:].mean()) for one in seeds]
    at_peak = [float(smoothed(one.gold)[peak]) for one, peak in zip(seeds, peaks, strict=True)]
    kl = np.concatenate([one.kl for one in seeds])
    numbers = np.concatenate([np.full(len(one.gold), seed) for seed, one in enumerate(seeds)])
    return {
        "gold_at_start": _json(mean_interval([float(one.gold[0]) for one in seeds])),
        "gold_at_end": _json(mean_interval(ends)),
        "gold_at_peak": _json(mean_interval(at_peak)),
        "fall": _json(mean_interval([end - top for end, top in zip(ends, at_peak, strict=True)])),
        "against_single": _json(
            mean_interval(
                [end - float(one.gold[-SMOOTHED:].mean()) for end, one in zip(ends, single, strict=True)]
            )
        ),
        "reward_at_end": _json(mean_interval([float(one.reward[-SMOOTHED:].mean()) for one in seeds])),
        "kl_at_end": _json(mean_interval([float(one.kl[-SMOOTHED:].mean()) for one in seeds])),
        "peak_iteration": peaks,
        "told_at": [one.told for one in seeds],
        "delay": [
            None if one.told is None else one.told - peak for one, peak in zip(seeds, peaks, strict=True)
        ],
        "law_of_gold": _law(kl, np.concatenate([one.gold for one in seeds]), numbers),
        "law_of_reward": _law(kl, np.concatenate([one.reward for one in seeds]), numbers),
        "by_iteration": {
            name: _mean_curve([getattr(one, name) for one in seeds])
            for name in ("gold", "reward", "kl", "disagreement")
        },
    }


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over neighbours, fewer at the ends."""
    half = SMOOTHED // 2
    return np.array([values[max(0, n - half) : n + half + 1].mean() for n in range(len(values))])


def peak_iterations(gold: list[NDArray[np.float64]]) -> list[int]:
    """Of each seed, where the mean curve of the others is highest."""
    curves = np.array([smoothed(one) for one in gold])
    total = curves.sum(axis=0)
    return [int(np.argmax(total - own)) for own in curves]


def _law(kl: NDArray[np.float64], values: NDArray[np.float64], seeds: NDArray[np.float64]) -> dict[str, Any]:
    try:
        found = measure(kl, values, seeds)
    except DataError as error:
        return {"refused": error.message}
    return {
        "R_0": round(found.curve.origin, 4),
        "alpha": _json(found.alpha),
        "beta": _json(found.beta),
        "peak": _json(found.peak),
        "warnings": list(found.warnings),
    }


def _json(estimate: Estimate) -> dict[str, float | None]:
    return {
        name: round(value, 4) if math.isfinite(value) else None
        for name, value in (("value", estimate.value), ("low", estimate.low), ("high", estimate.high))
    }


def _mean_curve(curves: list[NDArray[np.float64]]) -> list[float] | None:
    means = [statistics.fmean(values) for values in zip(*(one.tolist() for one in curves), strict=True)]
    return None if any(math.isnan(value) for value in means) else [round(value, 3) for value in means]
