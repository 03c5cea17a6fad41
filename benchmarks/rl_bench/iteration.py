"""One PPO iteration from end to end beside TRL's PPOTrainer, in turn, and ours phase by phase.

Both sides: the same random GPT as policy, reference and, with a head of its own, critic; the same prompts as
ids; four steps an epoch, each learning from its answers in one piece. `fp32` is equal precision, denormals
flushed; `defaults` leaves precision to each side. Seconds are those between the ends of iterations, without
the first, which warms up. Our reward is a rule; TRL's, which has to be a model, computes nothing.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_bench.peer import RL, peer_python, run_peer
from data_bench.spread import spread
from rl_bench.runs import seedbed

from data.tokenizers import Tokenizer, load_tokenizer
from training.checkpoint.models import load_model
from training.metrics import surviving_rows

RECIPE = Path(__file__).parent.parent / "train_bench" / "gpt.toml"
PEER = Path(__file__).parent / "peers" / "trl_ppo.py"
BARS = {"fp32": 2.0, "defaults": 4.0}
PHASES = ("refresh", "rollout", "reward", "score", "advantage")
THREADS, CONTEXT = 2, 256
EPOCHS, STEPS_PER_EPOCH = 4, 4
LENGTH = 64
"""Tokens of every prompt; as many are written."""
VOCABULARY = "vocab_size"


class Size(NamedTuple):
    """How much is measured."""

    prompts: int
    rounds: int
    iterations: int
    """Of each process, one to warm up not counted."""
    model: dict[str, int]


WHOLE = Size(64, 4, 2, {"num_layers": 6, "width": 384, "num_heads": 6, VOCABULARY: 8192})
QUICK = Size(16, 1, 1, {"num_layers": 1, "width": 64, "num_heads": 2, VOCABULARY: 512})


def run(quick: bool) -> dict[str, Any]:
    """For both forms: seconds, and TRL's over ours in the same round."""
    size = QUICK if quick else WHOLE
    with tempfile.TemporaryDirectory() as folder:
        prompts = _policy(Path(folder), size)
        shape = _peer_shape(Path(folder), size, prompts)
        compared = {form: _compare(Path(folder), form, size, shape) for form in BARS}
    return compared | {
        "prompts": size.prompts, "prompt_tokens": LENGTH, "new_tokens": LENGTH, "epochs": EPOCHS,
        "steps": EPOCHS * STEPS_PER_EPOCH, "threads": THREADS,
    }  # fmt: skip


def _compare(folder: Path, form: str, size: Size, shape: dict[str, Any]) -> dict[str, Any]:
    has_peer = peer_python(RL) is not None
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for number in range(size.rounds):
        # The order is turned round, so that what changes over time meets both.
        for name in ("seedbed", "trl")[:: 1 if number % 2 else -1]:
            if name == "seedbed":
                ours.append(_measured(folder, f"{form}-{number}", form, size))
            elif has_peer:
                asked = json.dumps({**shape, "form": form})
                theirs.append(run_peer(PEER, asked, threads=THREADS, peers=RL))
    own_s = [statistics.median(found["iteration_s"]) for found in ours]
    found = {"bar": BARS[form], "iteration_s": {"seedbed": spread(own_s)}, **_phases(ours)}
    if not theirs:
        return found | {
            "trl_over_seedbed": None,
            "not compared": f"no peer: `make peers`, or set ${RL.variable}",
        }
    trl_s = [statistics.median(one["iteration_s"]) for one in theirs]
    found["iteration_s"]["trl"] = spread(trl_s)
    return found | {
        "trl_over_seedbed": spread([peer / own for peer, own in zip(trl_s, own_s, strict=True)]),
        "trl": {name: theirs[0][name] for name in ("bf16", "recomputes_activations", "versions")},
    }


def _phases(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Where our seconds went, of all rounds; how fast weights reach the generator; how long answers were."""
    whole = sum(sum(run["iteration_s"]) for run in runs)
    shares = {phase: sum(sum(run["phases"][phase]) for run in runs) / whole for phase in runs[0]["phases"]}
    shares["other"] = 1 - sum(shares.values())
    rollouts = [row for run in runs for row in run["rollouts"]]
    return {
        "share": {phase: round(share, 4) for phase, share in shares.items()},
        "refresh_gb_per_s": spread([row["refreshed_bytes"] / 1e9 / row["refresh_s"] for row in rollouts]),
        "generator_apart": max(row["generator_apart"] for row in rollouts),
        "answer_tokens": spread([row["answer_tokens"] for row in rollouts]),
    }


def _measured(folder: Path, name: str, form: str, size: Size) -> dict[str, Any]:
    """A run of our side."""
    per_iteration, samples = EPOCHS * STEPS_PER_EPOCH, size.prompts // STEPS_PER_EPOCH
    sets = [
        *_model(size), f"run.steps={per_iteration * (1 + size.iterations)}", "objective.name=ppo",
        f"engine.precision={'fp32' if form == 'fp32' else 'auto'}", f"rl.prompts={size.prompts}",
        "rl.answers=1", f"rl.epochs={EPOCHS}", f"rl.max_new_tokens={LENGTH}", 'rl.rewards=["parses"]',
        f"batch.micro_batch_size={samples}", f"batch.tokens_per_step={samples * CONTEXT}",
        "schedule.name=constant", f"engine.threads_per_rank={THREADS}",
        f'data.source="{folder / "rows.jsonl"}"', "data.format=prompt-response", "data.template=plain",
        "data.near_duplicate_threshold=0", "data.holdout_fraction=0",
    ]  # fmt: skip
    seedbed(folder, "train", str(RECIPE), "--init-from", "policy", "--run-dir", name, *_asked(sets))
    rows = surviving_rows(folder / name)
    rollouts = [row for row in rows if row["kind"] == "rollouts"][1:]
    updates = [row for row in rows if row["kind"] == "train"]
    ends = [row["time"] for row in updates[per_iteration - 1 :: per_iteration]]
    phases = {phase: [row[f"{phase}_s"] for row in rollouts] for phase in PHASES}
    phases["update"] = [row["step_s"] for row in updates[per_iteration:]]
    return {
        "iteration_s": [end - begin for begin, end in itertools.pairwise(ends)],
        "phases": phases,
        "rollouts": rollouts,
    }


def _policy(folder: Path, size: Size) -> list[list[int]]:
    """A policy that knows nothing, and prompts for it: their ids, and a dataset of them."""
    sets = ["run.steps=1", "batch.tokens_per_step=2048", *_model(size)]
    seedbed(folder, "train", str(RECIPE), "--run-dir", "policy", *_asked(sets))
    tokenizer = load_tokenizer(load_model(folder / "policy").tokenizer_path)
    texts = [text for text, _ in zip(_texts(tokenizer), range(size.prompts), strict=False)]
    rows = [json.dumps({"prompt": text, "response": " pass"}) for text in texts]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return [list(tokenizer.encode(text)) for text in texts]


def _texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Words of a module of the standard library that together are `LENGTH` tokens."""
    words = Path(argparse.__file__).read_text(encoding="utf-8").split()
    taken: list[str] = []
    for word in words:
        taken.append(word)
        length = len(tokenizer.encode(" ".join(taken)))
        if length == LENGTH:
            yield " ".join(taken)
        if length >= LENGTH:
            taken = []


def _peer_shape(folder: Path, size: Size, prompts: list[list[int]]) -> dict[str, Any]:
    """What the other side is asked for."""
    path = load_model(folder / "policy").tokenizer_path
    return {
        "layers": size.model["num_layers"], "width": size.model["width"], "heads": size.model["num_heads"],
        "vocabulary": size.model[VOCABULARY], "context": CONTEXT, "tokenizer": str(path),
        "end_of_text": load_tokenizer(path).end_of_text, "prompts": prompts, "new_tokens": LENGTH,
        "epochs": EPOCHS, "mini_batches": STEPS_PER_EPOCH, "iterations": 1 + size.iterations,
        "threads": THREADS,
    }  # fmt: skip


def _model(size: Size) -> list[str]:
    return [f"data.{VOCABULARY}={size.model[VOCABULARY]}", *(f"model.{k}={v}" for k, v in size.model.items())]


def _asked(sets: list[str]) -> list[str]:
    return [word for one in sets for word in ("--set", one)]
