"""Engines by name."""

from training.engines.base import Engine, Group
from training.engines.ddp import DdpEngine
from training.engines.fsdp import FsdpEngine

ENGINES: dict[str, type[Engine]] = {"ddp": DdpEngine, "fsdp": FsdpEngine}

__all__ = ["ENGINES", "Engine", "Group"]
