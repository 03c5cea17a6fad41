"""Engines by name."""

from training.engines.base import Engine, Group
from training.engines.ddp import DdpEngine
from training.engines.fsdp import FsdpEngine
from training.engines.zero import Zero1Engine, Zero2Engine, Zero3Engine

ENGINES: dict[str, type[Engine]] = {
    "ddp": DdpEngine,
    "fsdp": FsdpEngine,
    "zero1": Zero1Engine,
    "zero2": Zero2Engine,
    "zero3": Zero3Engine,
}

__all__ = ["ENGINES", "Engine", "Group"]
