"""A model that is larger than one device: its layers spread over devices, host memory and disk.

`accelerate` moves a layer's weights to where they are computed with, just before. Embedding, last norm and
head stay on the main device; the blocks go wherever there is room. Slow: what fits should be scored whole.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from data.packages import package_missing
from evals.scoring.padded import PaddedBackend
from models.transformer import Transformer
from seedbed.errors import UsageError

PLACES = ("cpu", "disk")


def dispatched(
    model: Transformer,
    blocks: Mapping[int, str | int],
    *,
    main: str | int = "cpu",
    folder: Path | None = None,
    batch_size: int = 64,
    padding_id: int = 0,
) -> PaddedBackend:
    """`model` with block i at `blocks[i]`: a device (such as 0), "cpu" or "disk"; all others at `main`.

    What is on disk lies in `folder`. UsageError without a folder, or for a block that there is not.
    """
    try:
        from accelerate import dispatch_model
    except ImportError:
        raise package_missing("spreading a model over devices", "accelerate", "offload") from None
    num_layers = model.config.num_layers
    if unknown := set(blocks) - set(range(num_layers)):
        raise UsageError(f"the model has no block {min(unknown)}", f"place blocks from 0 to {num_layers - 1}")
    if "disk" in blocks.values() and folder is None:
        raise UsageError("a block is to be on disk, and there is no folder for it", "name a folder")
    places: dict[str, str | int] = {
        name: main for name, _ in model.named_children() if name not in ("blocks", "dropout")
    }
    places["dropout"] = main
    places |= {f"blocks.{layer}": blocks.get(layer, main) for layer in range(num_layers)}
    spread = dispatch_model(
        model.requires_grad_(False), device_map=places, main_device=main, offload_dir=folder, force_hooks=True
    )
    device = torch.device(main if isinstance(main, str) else f"cuda:{main}")
    return PaddedBackend(
        spread, context=model.config.context, padding_id=padding_id, batch_size=batch_size, device=device
    )


def fitted(
    model: Transformer, memory: Mapping[str | int, int], *, main: str | int = "cpu"
) -> dict[int, str | int]:
    """Where each block goes when places have `memory` bytes, the first of them filled first, disk last."""
    rest = sum(
        p.numel() * p.element_size() for n, p in model.named_parameters() if not n.startswith("blocks.")
    )
    free = {place: room - (rest if place == main else 0) for place, room in memory.items()}
    found: dict[int, str | int] = {}
    for name, block in model.blocks.items():
        size = sum(parameter.numel() * parameter.element_size() for parameter in block.parameters())
        place = next((place for place, room in free.items() if room >= size), "disk")
        if place in free:
            free[place] -= size
        found[int(name)] = place
    return found
