"""The devices that --on names, and a recipe put on them: to plan with, by calculation alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.config import Config
    from training.layout_search import Machines


def placed(recipe: str, sets: list[str], on: str, nodes: int | None) -> "tuple[Config, Machines]":
    """The configuration on the devices that are named, and these."""
    from training.catalogue import device_named, parse_devices
    from training.layout_search import Machines
    from training.recipes import load_config

    count, name = parse_devices(on)
    device = device_named(name)
    config = load_config(recipe, sets)
    if count is None:
        count = device.devices_per_node if nodes else config.engine.num_ranks
    per_node = count if nodes else min(count, device.devices_per_node)
    kind, precision = ("cuda" if device.is_gpu else "cpu"), config.engine.precision
    placement = [f"engine.num_ranks={count * (nodes or 1)}", f"engine.device={kind}"]
    if precision == "auto":
        # All that the catalogue holds multiply it natively.
        placement.append("engine.precision=bf16")
    return _sized(load_config(recipe, [*sets, *placement])), Machines(device, per_node)


def _sized(config: "Config") -> "Config":
    """See `training.prepare.sized`, which is asked only when something is left to the data."""
    open_fields = not config.model.vocab_size or getattr(config.model, "num_labels", None) == 0
    if not (open_fields or config.data.path or config.data.paths):
        return config
    from training.prepare import sized

    return sized(config)
