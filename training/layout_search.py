"""Layouts of one run on given devices: what each needs and how fast it is planned to be. No torch.

A layout is what may differ without the model or its batch being another: engine, resharding, replicas,
activation checkpointing, micro-batch size. Those that a configuration refuses are not among them.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from pydantic import ValidationError

from seedbed.errors import ConfigError
from seedbed.progress import human_bytes
from training.batch_layout import batch_layout
from training.catalogue import Device
from training.config import Config
from training.memory_plan import memory_by_part
from training.speed_plan import step_time

ENGINES: tuple[dict[str, Any], ...] = (
    {"name": "ddp"},
    {"name": "fsdp"},
    {"name": "fsdp", "reshard_after_forward": False},
    {"name": "zero1"},
    {"name": "zero2"},
    {"name": "zero3"},
)
POLICIES = ("none", "selective", "full")
MOST_REPLICAS = 8
"""Numbers of replicas that are looked at, spread evenly by ratio."""


class Machines(NamedTuple):
    """The devices of a plan."""

    device: Device
    per_node: int
    """In one machine."""


class Layout(NamedTuple):
    """One layout and what is planned for it."""

    settings: dict[str, Any]
    """Dotted settings, as `--set` takes them."""
    total_bytes: int
    """Memory per device."""
    fits: bool
    tokens_per_s: float
    """Over all devices."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "settings": self.settings,
            "memory_bytes_per_device": self.total_bytes,
            "fits": self.fits,
            "tokens_per_s": self.tokens_per_s,
        }


def every_engine_and_policy(config: Config, machines: Machines) -> list[Layout]:
    """Each engine with each checkpointing policy, at the micro-batch size of `config`."""
    sizes = (config.batch.micro_batch_size,)
    return [found for one in _layouts(config, sizes, (1,)) if (found := _planned(one, machines))]


def search(config: Config, machines: Machines) -> list[Layout]:
    """Every layout that fits, the fastest first; at equal speed the one that takes less memory.

    Raises ConfigError, naming the one that comes nearest, when none fits.
    """
    found = [
        planned
        for one in _layouts(config, _micro_batch_sizes(config), _replicas(config, machines.per_node))
        if (planned := _planned(one, machines))
    ]
    fitting = [layout for layout in found if layout.fits]
    if not fitting:
        smallest = min(found, key=lambda layout: layout.total_bytes)
        memory = machines.device.memory_bytes
        raise ConfigError(
            f"no layout fits {human_bytes(memory)} of one {machines.device.name}: the smallest takes "
            f"{human_bytes(smallest.total_bytes)}, with {assignments(smallest.settings)}",
            "take more devices or larger ones, a shorter context, or objective.num_chunks above 1",
        )
    return sorted(fitting, key=lambda layout: (-layout.tokens_per_s, layout.total_bytes))


def assignments(settings: dict[str, Any]) -> str:
    """`--set engine.name=fsdp --set ...`."""
    return " ".join(f"--set {name}={str(value).lower()}" for name, value in settings.items())


def _planned(settings: tuple[Config, dict[str, Any]], machines: Machines) -> Layout | None:
    config, asked = settings
    total = memory_by_part(config)["total"]
    try:
        seconds = step_time(config, machines.device, machines.per_node).total_s
    except ConfigError:
        return None
    rate = config.batch.tokens_per_step / seconds
    return Layout(asked, total, total <= machines.device.memory_bytes, rate)


def _layouts(
    config: Config, sizes: Sequence[int], replicas: Sequence[int]
) -> Iterator[tuple[Config, dict[str, Any]]]:
    """Configurations that can be run, with the settings that make them."""
    for engine, policy, number in product(ENGINES, POLICIES, replicas):
        if number > 1 and engine["name"] != "fsdp":
            continue
        asked = {"reshard_after_forward": True, **engine, "checkpointing": policy, "replicas": number}
        changed = _with_engine(config, asked)
        if changed is None:
            continue
        told = {f"engine.{name}": asked[name] for name in ("name", "checkpointing")}
        if engine["name"] == "fsdp":
            told["engine.reshard_after_forward"] = asked["reshard_after_forward"]
            told["engine.replicas"] = number
        for size in sizes:
            batch = config.batch.model_copy(update={"micro_batch_size": size})
            yield (
                changed.model_copy(update={"batch": batch}),
                {**told, "batch.micro_batch_size": size},
            )


def _with_engine(config: Config, asked: dict[str, Any]) -> Config | None:
    """`config` with another engine; None where that is refused."""
    update: dict[str, Any] = {**asked, "memory_budget": 1.0}
    if asked["name"] != config.engine.name:
        update |= {"offload": "none", "deepspeed": {}}
    try:
        # Built anew, so that everything is checked that a recipe would be.
        engine = type(config.engine)(**{**config.engine.model_dump(), **update})
        sections = {name: getattr(config, name) for name in type(config).model_fields}
        return Config(**{**sections, "engine": engine})
    except ValidationError:
        return None


def shared_out(config: Config) -> Config:
    """`config`, with the largest micro-batch size that its ranks can share, where its own leaves some
    without."""
    sizes = _micro_batch_sizes(config)
    if config.batch.micro_batch_size in sizes or not sizes:
        return config
    batch = config.batch.model_copy(update={"micro_batch_size": sizes[-1]})
    return config.model_copy(update={"batch": batch})


def _micro_batch_sizes(config: Config) -> list[int]:
    """Powers of two, and the size at hand, that divide the batch among the ranks."""
    most = config.batch.tokens_per_step // config.model.context
    sizes = {config.batch.micro_batch_size, *(1 << power for power in range(most.bit_length()))}
    return [size for size in sorted(sizes) if _is_possible(config, size)]


def _is_possible(config: Config, size: int) -> bool:
    batch = config.batch.model_copy(update={"micro_batch_size": size})
    try:
        batch_layout(config.model_copy(update={"batch": batch}))
    except ConfigError:
        return False
    return True


def _replicas(config: Config, per_node: int) -> list[int]:
    """1, and numbers of replicas of whole machines."""
    nodes = max(1, config.engine.num_ranks // per_node)
    possible = [n for n in range(1, nodes + 1) if not nodes % n and not config.engine.num_ranks % n]
    step = max(1, -(-len(possible) // MOST_REPLICAS))
    return sorted({1, *possible[::-step]})
