"""Generation beside `transformers`: the same weights, prompts and lengths, in one process, in turn, as JSON.

    python -P benchmarks/generate.py [--quick] [--threads N] [--out FILE]

The peer is `generate` in the way that was fastest on a CPU of those it offers: greedy, attention by PyTorch's
fused kernel, the default cache, inference mode, prompts padded on the left. (A static cache was as fast, and
no faster compiled; continuous batching, `generate_batch`, several times slower.) A batch of the peer goes on
until its longest answer is there; ours refills a slot when its answer is there. Only tokens that were asked
for are counted, on both sides, so that raggedness counts against whoever pads:

    ragged     prompts and answers of log-normal lengths: median 20 tokens, sigma 0.6, from 4 to 96
    uniform    prompts and answers of 8 to 64 tokens
    even       prompts and answers of 36 tokens, where nothing is wasted by either side
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from models.config import ModelConfig
from models.generation import Engine, Request, SamplingOptions
from models.hf import export_model
from models.initialization import initialize
from models.transformer import Transformer

SHAPES = {
    "gpt2-124m": {"family": "gpt2", "vocab_size": 50257},
    "llama-100m": {
        "family": "llama", "num_layers": 12, "width": 768, "num_heads": 12, "num_kv_heads": 4,
        "mlp_width": 2048, "vocab_size": 32000,
    },
}  # fmt: skip
PLAN = {
    "gpt2-124m": {"ragged": (1, 16, 64), "uniform": (64,), "even": (1, 64)},
    "llama-100m": {"ragged": (1, 64)},
}
GREEDY = SamplingOptions(temperature=0)
# Small initial weights repeat one token for ever; texts of larger ones wander, and a wrong number shows.
WEIGHT_SCALE = 4.0


def main() -> None:
    """Compare every shape at every batch size and workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="GPT-2 alone, one pair of runs of each kind")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for both sides")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    transformers.logging.set_verbosity_error()
    # Last, since this folder holds a file with the name of a package.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import cpu_name

    results: dict[str, Any] = {
        "machine": {
            "cpu": cpu_name(),
            "threads": asked.threads,
            "read_gb_per_s": round(read_rate() / 1e9, 1),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    for name in list(PLAN)[:1] if asked.quick else PLAN:
        ours, theirs = build(name)
        parameters = sum(parameter.numel() for parameter in ours.parameters())
        results[name] = {"parameters": parameters, "weights_bytes": 4 * parameters}
        engine = Engine(ours)
        for workload, batches in PLAN[name].items():
            for batch in batches:
                print(f"== {name}, {workload}, batch {batch}", file=sys.stderr)
                pairs = 1 if asked.quick else 5 if batch == 1 else 3
                found = compare(engine, theirs, requests_of(workload, batch), batch, pairs)
                results[name][f"{workload}, batch {batch}"] = found
                print(json.dumps(found), file=sys.stderr)
    text = json.dumps(results, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def build(name: str) -> tuple[Transformer, Any]:
    """Our model with random weights, and theirs with the same."""
    model = Transformer(ModelConfig(**SHAPES[name])).eval()
    initialize(model, model.config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(WEIGHT_SCALE if parameter.ndim > 1 else 1)
    with tempfile.TemporaryDirectory() as folder:
        export_model(model.config, dict(model.named_parameters()), Path(folder, "model"))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            Path(folder, "model"), attn_implementation="sdpa", dtype=torch.float32
        )
    return model, theirs.eval()


def requests_of(workload: str, batch: int) -> list[Request]:
    """Random prompts, the same in every run."""
    rng = np.random.default_rng(batch)
    # One text at a time needs several for a steady figure; half a batch more than fits shows the refilling.
    count = 4 if batch == 1 else batch if workload == "even" else 3 * batch // 2
    lengths = {
        "ragged": lambda: (20 * np.exp(0.6 * rng.standard_normal((count, 2)))).clip(4, 96).astype(int),
        "uniform": lambda: rng.integers(8, 65, size=(count, 2)),
        "even": lambda: np.full((count, 2), 36),
    }[workload]()
    return [
        Request(rng.integers(5, 30_000, size=prompt).tolist(), int(answer), GREEDY)
        for prompt, answer in lengths
    ]


def compare(engine: Engine, theirs: Any, requests: list[Request], batch: int, pairs: int) -> dict[str, Any]:
    """Tokens per second of both, and their ratio in each pair of runs that followed each other."""
    from data_bench.spread import spread

    engine.num_slots = batch
    sides: dict[str, Callable[[], list[list[int]]]] = {
        "seedbed": lambda: [completion.tokens for completion in engine.complete(requests)],
        "transformers": lambda: their_answers(theirs, requests, batch),
    }
    warm_up(engine, theirs, requests, batch)
    num_tokens = sum(request.max_new_tokens for request in requests)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    answers = {}
    for pair in range(pairs):
        for name in list(sides) if pair % 2 else list(sides)[::-1]:
            started = time.perf_counter()
            answers[name] = sides[name]()
            rates[name].append(num_tokens / (time.perf_counter() - started))
    ratios = [ours / peer for ours, peer in zip(rates["seedbed"], rates["transformers"], strict=True)]
    same = [a == b for a, b in zip(answers["seedbed"], answers["transformers"], strict=True)]
    return {
        "requests": len(requests),
        "new_tokens": num_tokens,
        "different_tokens": len({token for answer in answers["seedbed"] for token in answer}),
        "identical_answers": f"{sum(same)} of {len(same)}",
        "tokens_per_s": {name: spread(values) for name, values in rates.items()},
        "ratio": spread(ratios),
    }


def warm_up(engine: Engine, theirs: Any, requests: list[Request], batch: int) -> None:
    """Let both sides meet the shapes, for two tokens each."""
    short = [Request(request.prompt, 2, GREEDY) for request in requests[:batch]]
    engine.complete(short)
    their_answers(theirs, short, batch)


@torch.inference_mode()
def their_answers(model: Any, requests: list[Request], batch: int) -> list[list[int]]:
    """Greedy answers by `transformers`, `batch` requests at a time."""
    answers = []
    for start in range(0, len(requests), batch):
        group = requests[start : start + batch]
        longest = max(len(request.prompt) for request in group)
        tokens = torch.zeros(len(group), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, request in enumerate(group):
            tokens[row, longest - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, longest - len(request.prompt) :] = 1
        num_new = max(request.max_new_tokens for request in group)
        found = model.generate(
            tokens, attention_mask=mask, max_new_tokens=num_new, do_sample=False, use_cache=True,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        answers += [
            row[longest:][: request.max_new_tokens].tolist()
            for row, request in zip(found, group, strict=True)
        ]
    return answers


def read_rate() -> float:
    """Bytes per second that the machine reads from memory: what bounds one text at a time."""
    numbers = torch.ones(50_000_000)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - started)
    return 4 * numbers.numel() / statistics.median(times)


if __name__ == "__main__":
    main()
