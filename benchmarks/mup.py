"""Whether the best learning rate holds as a model widens, with muP and without, as JSON.

    python -P benchmarks/mup.py [--quick] [--out FILE]

Small GPTs of several widths learn the bytes of Python's own standard library at learning rates that double;
what counts is the mean loss of the last steps. With muP the best rate should be one for all widths (Yang et
al. 2022, figure 1); without, it should fall as the width grows.
"""

import argparse
import json
import math
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models import mup
from models.config import ModelConfig
from models.initialization import initialize
from models.transformer import Transformer
from seedbed.randomness import generator
from training.optimizers import make_optimizer
from training.sections import OptimizerConfig

BASE_WIDTH, HEAD_WIDTH, CONTEXT, BATCH = 64, 16, 64, 8
LOG2_RATES = tuple(range(-11, -4))


def main() -> int:
    """Train every model once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer widths and steps")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # One core: products of these sizes are slower on many.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    widths, num_steps = ((64, 128), 60) if asked.quick else ((64, 128, 256), 200)
    text = standard_library(2_000_000)
    results = {
        name: sweep(text, widths, num_steps, is_mup=is_mup)
        for name, is_mup in (("mup", True), ("standard", False))
    }
    found = json.dumps({"num_steps": num_steps, "batch": BATCH, "context": CONTEXT, **results}, indent=2)
    print(found)
    if asked.out:
        asked.out.write_text(found + "\n")
    return 0


def sweep(text: np.ndarray, widths: tuple[int, ...], num_steps: int, *, is_mup: bool) -> dict[str, object]:
    """Loss by width and rate, and the best rate of each width."""
    losses: dict[int, dict[int, float]] = {}
    for width in widths:
        losses[width] = {rate: train(text, width, 2.0**rate, num_steps, is_mup=is_mup) for rate in LOG2_RATES}
        print(f"mup={is_mup} width {width}: {losses[width]}", file=sys.stderr)
    best = {width: min(row, key=row.__getitem__) for width, row in losses.items()}
    return {"losses_by_log2_rate": losses, "best_log2_rate": best}


def train(text: np.ndarray, width: int, rate: float, num_steps: int, *, is_mup: bool) -> float:
    """Mean loss, in nats per byte, over the last tenth of the steps; infinite if it diverged."""
    base = {"mup_base_width": BASE_WIDTH, "mup_base_head_width": HEAD_WIDTH} if is_mup else {}
    config = ModelConfig(
        num_layers=2, width=width, num_heads=width // HEAD_WIDTH, context=CONTEXT, vocab_size=256, **base
    )
    model = Transformer(config)
    initialize(model, config, seed=0)
    optimizer = make_optimizer(
        model.named_parameters(), OptimizerConfig(lr=rate), partial(mup.learning_rate_scale, config=config)
    )
    losses = []
    for step, tokens in enumerate(batches(text, num_steps)):
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"] * min(1.0, (step + 1) / (0.1 * num_steps))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    mean = sum(losses[-num_steps // 10 :]) / (num_steps // 10)
    return round(mean, 4) if math.isfinite(mean) else math.inf


def batches(text: np.ndarray, num_steps: int) -> Iterator[torch.Tensor]:
    """[B, T + 1] bytes at random places, the same for every model."""
    for step in range(num_steps):
        starts = generator(0, "mup", step).integers(0, len(text) - CONTEXT - 1, BATCH)
        yield torch.from_numpy(np.stack([text[i : i + CONTEXT + 1] for i in starts]).astype(np.int64))


def standard_library(num_bytes: int) -> np.ndarray:
    """The first bytes of Python's own modules, in the order of their names."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return np.frombuffer(b"\n".join(path.read_bytes() for path in paths)[:num_bytes], np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
