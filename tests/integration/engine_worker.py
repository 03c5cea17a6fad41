"""One rank of small trainings on random tokens: started by the tests of the engines, one process per rank.

    python engine_worker.py RENDEZVOUS RANK NUM_RANKS JOBS

JOBS is a JSON list of {folder, config (tables), steps}, done one after another; with `load` (a folder) a job
goes on from the state that another left. Each leaves in its folder its shards of the final state, those that
it began with if it loaded any, and the losses and norms of its steps.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.families import build, initial_values
from training.batch_layout import batch_layout
from training.config import Config
from training.engines import ENGINES, Engine, Group
from training.engines.base import Shard
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.processes import process_group
from training.recipes import make_config

VOCABULARY = 67


def main() -> None:
    """Do all jobs."""
    rendezvous, rank, num_ranks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with process_group(rank, num_ranks, "cpu", rendezvous, 120) as group:
        for job in json.loads(sys.argv[4]):
            run(job, group)


def run(job: dict[str, Any], group: Group) -> None:
    """One training."""
    tables, folder = job["config"], Path(job["folder"])
    tables["engine"] = {**tables["engine"], "num_ranks": group.num_ranks, "device": "cpu"}
    # What the job before compiled counts towards a limit of the process.
    torch._dynamo.reset()
    config = make_config(tables)
    engine = ENGINES[config.engine.name].prepare(
        lambda: build(config.model),
        lambda name, start, stop: initial_values(name, start, stop, config.model, 5),
        config,
        group,
    )
    if "load" in job:
        whole = stored(Path(job["load"]))
        engine.load_state(
            lambda name, shape, offsets, local: whole[name].view(shape)[
                tuple(slice(o, o + n) for o, n in zip(offsets, local, strict=True))
            ]
        )
        store(engine, folder / f"loaded-{group.rank}.npz")
    first = job.get("first", 0)
    rows = []
    for step in range(first, first + job["steps"]):
        if job.get("watch"):
            engine.watch()
        how = job.get("passes", {}).get(str(step), "")
        if how != "omitted":
            rows.append(train_step(engine, config, step, job.get("lr", 1e-2), how))
    store(engine, folder / f"state-{group.rank}.npz")
    told = {
        "losses": [loss for loss, _ in rows],
        "norms": [norm for _, norm in rows],
        "layers": engine.layer_norms,
        "kernels": str(engine.compiled or "eager"),
    }
    (folder / f"out-{group.rank}.json").write_text(json.dumps(told))


def train_step(engine: Engine, config: Config, step: int, lr: float, how: str = "") -> tuple[float, float]:
    """(loss, gradient norm); `how` says that it is not to be learnt from: skipped, or its norm too large."""
    layout = batch_layout(config)
    totals = [0.0] * layout.num_micro_batches
    weights = totals.copy()
    for turn in range(layout.turns):
        index = layout.micro_batch(engine.group.rank, turn)
        size = layout.micro_batch_size
        rows = [sample(step, (index or 0) * size + row, config.model.context) for row in range(size)]
        tokens, targets, weight = (torch.stack(column) for column in zip(*rows, strict=True))
        torch.manual_seed(7919 * step + (index or 0))
        loss, summed = engine.micro_batch(
            CausalLM(),
            TensorBatch(tokens, targets, weight * (index is not None)),
            last=turn == layout.turns - 1,
        )
        if index is not None:
            totals[index], weights[index] = loss.item(), summed.item()
    sums = engine.sum_over_ranks([*totals, *weights])
    total, weight = sum(sums[: len(totals)]), sum(sums[len(totals) :])
    if how == "skipped":
        engine.skip()
        return total / weight, 0.0
    return total / weight, engine.step(lr, weight, max_norm=1e-6 if how == "too large" else math.inf)


def sample(step: int, number: int, context: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random tokens, what follows them, and weights of a text that ends somewhere before padding."""
    random = torch.Generator().manual_seed(1000 * step + number)
    tokens = torch.randint(0, VOCABULARY, (context + 1,), generator=random)
    length = int(torch.randint(1, context + 1, (), generator=random))
    return tokens[:-1], tokens[1:], (torch.arange(context) < length).float()


def store(engine: Engine, path: Path) -> None:
    """This rank's shards, flattened: `name@where it begins in the flattened tensor`."""
    np.savez(
        path,
        **{
            f"{shard.name}@{start_of(shard)}": shard.local.cpu().numpy().ravel()
            for shard in engine.state()
            if shard.local.numel()
        },
    )


def start_of(shard: Shard) -> int:
    """Where its first element lies in the flattened tensor."""
    return int(np.ravel_multi_index(shard.offsets, shard.global_shape)) if shard.offsets else 0


def stored(folder: Path, stage: str = "state") -> dict[str, torch.Tensor]:
    """Whole tensors, flattened, from the shards of all ranks."""
    parts: dict[str, list[tuple[int, np.ndarray]]] = {}
    for path in folder.glob(f"{stage}-*.npz"):
        for key, values in np.load(path).items():
            name, _, start = key.rpartition("@")
            parts.setdefault(name, []).append((int(start), values))
    return {
        name: torch.from_numpy(np.concatenate([values for _, values in sorted(own, key=lambda one: one[0])]))
        for name, own in parts.items()
    }


if __name__ == "__main__":
    main()
