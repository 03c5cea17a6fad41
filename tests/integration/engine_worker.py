"""One rank of a small training on random tokens: started by the tests of the engines, one process per rank.

    python engine_worker.py FOLDER RANK NUM_RANKS SETTINGS

SETTINGS is JSON: `config` (tables), `steps`, and, when it goes on from a state, `load` (a folder of .npz).
It leaves its shards of the final state in FOLDER, and the losses and norms of its steps.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from models.families import build, initial_values
from training.batch_layout import batch_layout
from training.engines import ENGINES
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.processes import process_group
from training.recipes import make_config

VOCABULARY = 67


def main() -> None:
    """Train, and write what became of it."""
    folder, rank, num_ranks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    settings = json.loads(sys.argv[4])
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    tables = settings["config"]
    tables["engine"] = {**tables["engine"], "num_ranks": num_ranks, "device": "cpu"}
    config = make_config(tables)
    layout = batch_layout(config)
    with process_group(rank, num_ranks, "cpu", folder / "rendezvous", 120) as group:
        engine = ENGINES[config.engine.name].prepare(
            lambda: build(config.model),
            lambda name, start, stop: initial_values(name, start, stop, config.model, 5),
            config,
            group,
        )
        if "load" in settings:
            stored = {}
            for path in sorted(Path(settings["load"]).glob("*.npz")):
                for key, values in np.load(path).items():
                    name, _, offset = key.rpartition("@")
                    stored.setdefault(name, []).append((int(offset), torch.from_numpy(values)))
            whole = {
                name: torch.cat([values for _, values in sorted(parts, key=lambda part: part[0])])
                if parts[0][1].ndim
                else parts[0][1]
                for name, parts in stored.items()
            }
            engine.load_state(
                lambda name, shape, offsets, local: whole[name][
                    tuple(slice(o, o + n) for o, n in zip(offsets, local, strict=True))
                ]
            )
        losses, norms = [], []
        for step in range(settings.get("first", 0), settings.get("first", 0) + settings["steps"]):
            totals = [0.0] * layout.num_micro_batches
            weights = totals.copy()
            for turn in range(layout.turns):
                index = layout.micro_batch(rank, turn)
                random = torch.Generator().manual_seed(1000 * step + (index or 0))
                shape = (layout.micro_batch_size, config.model.context)
                tokens = torch.randint(0, VOCABULARY, shape, generator=random)
                targets = torch.randint(0, VOCABULARY, shape, generator=random)
                weight = (torch.rand(shape, generator=random) > 0.4).float() * (index is not None)
                torch.manual_seed(7919 * step + (index or 0))
                loss, summed = engine.micro_batch(
                    CausalLM(), TensorBatch(tokens, targets, weight), last=turn == layout.turns - 1
                )
                if index is not None:
                    totals[index], weights[index] = loss.item(), summed.item()
            sums = engine.sum_over_ranks([*totals, *weights])
            total, weight = sum(sums[: len(totals)]), sum(sums[len(totals) :])
            losses.append(total / weight)
            norms.append(engine.step(settings.get("lr", 1e-2), weight))
        shards = {
            f"{shard.name}@{shard.offsets[0] if shard.offsets else 0}": shard.local.cpu().numpy()
            for shard in engine.state()
            if shard.local.numel()
        }
    np.savez(folder / f"state-{rank}.npz", **shards)
    (folder / f"out-{rank}.json").write_text(json.dumps({"losses": losses, "norms": norms}))


if __name__ == "__main__":
    main()
