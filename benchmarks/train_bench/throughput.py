"""Tokens per second of one GPT beside the Trainer of `transformers`, Accelerate and LitGPT, in turn: fp32
without compilation, denormals flushed, for all. `defaults.py` has each as its own documentation recommends.

All have the same sizes, batch and threads, AdamW with clipping, no dropout. Ours is a run of `seedbed train`
on real text, with reading, records and heartbeats; the peers have random tokens in memory. `matmul` is what
products of square matrices reach with the same threads: no training in fp32 can be faster.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from train_bench.runs import RECIPE, assignments, sized, timed_run

from models.families import flops_per_token
from training.devices import choose_precision, measured_matmul_flops
from training.recipes import load_config
from training.sections import EngineConfig

PEERS = ("hf_trainer", "accelerate_loop", "litgpt_pretrain")
ACCUMULATION = 2


def run(quick: bool) -> dict[str, Any]:
    """Rates, and our rate over each peer's in the same round."""
    return compare("equal", quick)


def compare(form: str, quick: bool) -> dict[str, Any]:
    """`form` is "equal" or "recommended"; the peers are told it."""
    from data_bench.peer import TRAIN, peer_python, run_peer
    from data_bench.spread import spread

    threads = 1 if quick else len(os.sched_getaffinity(0))
    steps, warm_up, rounds = (2, 2, 1) if quick else (8, 3, 4)
    precision = choose_precision(EngineConfig(device="cpu"))
    settings = sized(quick, ACCUMULATION)
    shape = json.dumps(
        {
            **peer_shape(settings),
            "steps": steps,
            "warm_up": warm_up,
            "threads": threads,
            "form": form,
            "native_precision": precision,
        }
    )
    ours = {
        **settings,
        "engine.threads_per_rank": threads,
        **({"engine.precision": "auto"} if form != "equal" else {}),
    }
    peers = PEERS if peer_python(TRAIN) else ()
    rates: dict[str, list[float]] = {}
    versions: dict[str, Any] = {}
    ceilings: list[float] = []
    config = load_config(str(RECIPE), assignments(ours))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            ceilings.append(_matmul_ceiling(threads))
            # The order is turned round, so that what changes over time meets all of them.
            for name in ("seedbed", *peers)[:: 1 if number % 2 else -1]:
                if name == "seedbed":
                    found = timed_run(Path(folder, str(number)), ours, steps=steps, warm_up=warm_up)
                else:
                    script = Path(__file__).parent / "peers" / f"{name}.py"
                    found = run_peer(script, shape, threads=threads, peers=TRAIN)
                    versions[name] = found["versions"]
                rates.setdefault(name, []).append(found["tokens_per_s"])
    ratios = {
        name: spread([own / peer for own, peer in zip(rates["seedbed"], rates[name], strict=True)])
        for name in peers
    }
    return {
        "threads": threads,
        "native_precision": precision,
        "matmul_flops_per_s": spread(ceilings),
        "flops_per_token": flops_per_token(config.model).causal,
        "tokens_per_s": {name: spread(values) for name, values in rates.items()},
        "seedbed_over": ratios or "no peers: `make peers`, or set $SEEDBED_TRAIN_PEERS",
        "versions": versions,
    }


def _matmul_ceiling(threads: int) -> float:
    """Operations per second of the device's largest rate of fp32 products."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = measured_matmul_flops(torch.device("cpu"), "fp32", repeats=20)
    torch.set_num_threads(before)
    return found


def peer_shape(settings: dict[str, Any]) -> dict[str, int]:
    """The sizes of gpt.toml, as changed by `settings`, in the peers' words."""
    return {
        "layers": settings.get("model.num_layers", 6),
        "width": settings.get("model.width", 384),
        "heads": settings.get("model.num_heads", 6),
        "context": settings["model.context"],
        "vocabulary": settings.get("model.vocab_size", 8192),
        "micro_batch": settings["batch.micro_batch_size"],
        "accumulation": ACCUMULATION,
    }
