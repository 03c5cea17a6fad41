"""Tokens per second of supervised fine-tuning beside TRL's SFTTrainer, packing on for both, in turn.

The model is that of gpt.toml with random weights; the examples are functions of the standard library, as ids,
the same for both sides; tokens are those of the examples, without padding. `equal` is fp32 without recomputed
activations, denormals flushed; `recommended` leaves both to each side's own defaults.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from train_bench.runs import sized, timed_run
from train_bench.throughput import ACCUMULATION, peer_shape

from data.build import build_dataset
from data.config import DataConfig
from data.examples.supervised import SupervisedStream
from data.examples.table import ExampleTable
from data.shards import Dataset
from data.tokenizers import load_tokenizer

BAR = 1.5


def run(quick: bool) -> dict[str, Any]:
    """For both forms: rates, and our rate over TRL's in the same round."""
    with tempfile.TemporaryDirectory() as folder:
        data = _examples(Path(folder), quick)
        return {"bar": BAR, **{form: _compare(form, quick, data) for form in ("equal", "recommended")}}


def _examples(folder: Path, quick: bool) -> dict[str, Any]:
    """A dataset, and what the peer needs of it: ids with masks, and its tokenizer."""
    context, vocabulary = sized(quick, 1)["model.context"], 512 if quick else 8192
    built = build_dataset(
        DataConfig(source="stdlib", format="python-functions", template="plain", vocab_size=vocabulary),
        folder / "data",
    )
    dataset = Dataset.open(built)
    table = ExampleTable.of(dataset, "train")
    examples = [
        {
            "input_ids": table.tokens(i).tolist(),
            "completion_mask": table.trained(i, length).astype(int).tolist(),
        }
        for i, length in enumerate(table.lengths.tolist())
        if length <= context
    ]
    (folder / "examples.json").write_text(json.dumps(examples))
    return {
        "path": str(built),
        "examples": str(folder / "examples.json"),
        "tokenizer": str(built / "tokenizer.json"),
        "end_of_text": load_tokenizer(built / "tokenizer.json").end_of_text,
        "filled": SupervisedStream(table, context, 0).filled,
    }


def _compare(form: str, quick: bool, data: dict[str, Any]) -> dict[str, Any]:
    from data_bench.peer import TRAIN, run_peer
    from data_bench.spread import spread

    threads, steps, warm_up, rounds = (1, 2, 2, 1) if quick else (2, 8, 3, 4)
    settings = {
        **sized(quick, ACCUMULATION),
        "engine.threads_per_rank": threads,
        "data.path": data["path"],
        "objective.name": "sft",
        "objective.too_long": "drop",
        **({"engine.precision": "auto"} if form != "equal" else {}),
    }
    shape = json.dumps(
        {
            **peer_shape(settings),
            **data,
            "steps": steps,
            "warm_up": warm_up,
            "threads": threads,
            "form": form,
        }
    )
    rates: dict[str, list[float]] = {"seedbed": [], "trl": []}
    found: dict[str, Any] = {"filled": data["filled"]}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name in ("seedbed", "trl")[:: 1 if number % 2 else -1]:
                if name == "seedbed":
                    measured = timed_run(Path(folder, str(number)), settings, steps=steps, warm_up=warm_up)
                    rates[name].append(data["filled"] * measured["tokens_per_s"])
                else:
                    script = Path(__file__).parent / "peers" / "trl_sft.py"
                    measured = run_peer(script, shape, threads=threads, peers=TRAIN)
                    found |= {"filled by trl": measured["filled"], "versions": measured["versions"]}
                    rates[name].append(measured["tokens_per_s"])
    ratios = [ours / theirs for ours, theirs in zip(rates["seedbed"], rates["trl"], strict=True)]
    return {
        **found,
        "tokens_per_s": {name: spread(values) for name, values in rates.items()},
        "seedbed_over_trl": spread(ratios),
    }
