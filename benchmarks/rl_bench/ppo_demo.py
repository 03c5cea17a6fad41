"""What `ppo-demo` does to gold, and to what the policy knew before, with PPO-ptx and without.

Protocol, fixed before the runs that are reported.

- gpt-demo -> sft-demo -> comparisons of its answers to 2,000 prompts by the checker of Python -> rm-demo ->
  ppo-demo, all as they ship, with five seeds (`run.seed`) of ppo-demo; and the same five with rl.ptx = 0.5 on
  the text of gpt-demo.
- Gold is the checker (0 to 4 points), which the reward model learned from and the policy does not see. Before
  and after, a policy answers 100 held-out prompts twice at temperature 1, drawn by the seed; an answer that
  does not end counts for what the checker gives it. `gain` is after less before, by seed, with Student's 95 %
  interval over the seeds.
- A seed has collapsed when its gold after is below that before, or one text makes more than half of its
  answers. How many have is printed, and the longest share of one text.
- The alignment tax is bits per byte of the first 40 documents of gpt-demo's held-out text that have at most
  20,000 bytes, after less before PPO; the difference of the two is paired by seed.

$SEEDBED_CHAIN may name a folder with runs/gpt, runs/sft, runs/rm and comparisons.jsonl, in which the runs of
this study stay, and are taken up again.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rl_bench.chain import FEW, FEW_ANSWERS, chain_of, trained

from data.tokenizers import load_tokenizer
from evals.bits_per_byte import bits_per_byte, score_documents
from evals.items import load_items
from seedbed.statistics import Estimate, mean_interval
from training.checkpoint.models import load_model
from training.rewards.comparisons import Sampling, sampled
from training.rewards.python_checker import check

SEEDS, PROMPTS, ANSWERS = 5, 100, 2
DOCUMENTS, LONGEST = 40, 20_000
PTX = 0.5


@dataclass(frozen=True)
class Policy:
    """What is measured of one."""

    gold: float
    commonest: float
    """The share of the answers that are its commonest text."""
    bits_per_byte: float


def run(quick: bool) -> dict[str, Any]:
    """All runs, and what they show."""
    with chain_of(quick) as chain:
        sft, text = chain / "runs" / "sft", load_model(chain / "runs" / "gpt").dataset_path
        prompts = 10 if quick else PROMPTS
        found: dict[str, list[Policy]] = {"before": [], "ppo": [], "ptx": []}
        for seed in range(2 if quick else SEEDS):
            found["before"].append(_measured(sft, text, seed, prompts))
            for name in ("ppo", "ptx"):
                run_dir = chain / ("quick" if quick else "runs") / f"{name}-{seed}"
                _learnt(chain, sft, run_dir, seed, with_text=name == "ptx", quick=quick)
                found[name].append(_measured(run_dir, text, seed, prompts))
    return {"ptx": PTX, "prompts": prompts, "answers": ANSWERS} | summarised(found)


def _learnt(chain: Path, sft: Path, run_dir: Path, seed: int, *, with_text: bool, quick: bool) -> None:
    settings = [f"run.seed={seed}", *((*FEW, *FEW_ANSWERS, "engine.num_ranks=1") if quick else ())]
    if with_text:
        settings += [f"rl.ptx={PTX}", f'rl.ptx_data="{chain / "runs" / "gpt"}"']
    trained(chain, "ppo-demo", run_dir, settings, "--init-from", str(sft))


def _measured(policy: Path, text: Path, seed: int, prompts: int) -> Policy:
    answers = sampled(policy, Sampling("holdout", prompts, ANSWERS, 1.0, seed))
    scores = [check(one.prompt, one.text, one.written, ended=one.ended).score for one in answers]
    commonest = Counter(one.text for one in answers).most_common(1)[0][1]
    return Policy(fmean(scores), commonest / len(answers), _bits_per_byte(policy, text))


@functools.cache
def _bits_per_byte(policy: Path, text: Path) -> float:
    loaded = load_model(policy)
    tokenizer = load_tokenizer(loaded.tokenizer_path)
    items = [item for item in load_items(text, tokenizer).items if len(item.text) <= LONGEST]
    end, context = tokenizer.end_of_text_id, loaded.config.model.context
    model = loaded.decoder()
    return bits_per_byte(score_documents(model, items[:DOCUMENTS], context=context, end_of_text_id=end)).value


def summarised(found: dict[str, list[Policy]]) -> dict[str, Any]:
    """By policy and seed, and their differences with intervals."""
    before = found["before"]
    told: dict[str, Any] = {
        name: {field: [round(getattr(one, field), 4) for one in some] for field in Policy.__annotations__}
        for name, some in found.items()
    }
    for name in ("ppo", "ptx"):
        after = found[name]
        pairs = list(zip(before, after, strict=True))
        told[name] |= {
            "gain": _interval([b.gold - a.gold for a, b in pairs]),
            "tax": _interval([b.bits_per_byte - a.bits_per_byte for a, b in pairs]),
            "collapsed": sum(b.gold < a.gold or b.commonest > 0.5 for a, b in pairs),
        }
    both = list(zip(found["ppo"], found["ptx"], strict=True))
    told["ptx_less_ppo"] = {
        "tax": _interval([b.bits_per_byte - a.bits_per_byte for a, b in both]),
        "gold": _interval([b.gold - a.gold for a, b in both]),
    }
    return told


def _interval(values: list[float]) -> list[float]:
    """Mean and the ends of its interval."""
    found: Estimate = mean_interval(values)
    return [round(value, 4) for value in (found.value, found.low, found.high)]
