"""Where the runs of a pipeline or a sweep train: processes of this machine, or a Ray cluster."""

from collections.abc import Mapping
from typing import Any

from cluster.pipelines.work import Work, command_of, process_of

ALL_AT_ONCE = 1000
"""A cluster has a queue of its own."""


def place_to_train(on: str, at_once: int) -> dict[str, Any]:
    """What a driver needs to know for `--on`: local, ray, or the address of a cluster."""
    if on == "local":
        return {"at_once": at_once}
    from cluster.ray_connect import connect, find_address

    address = find_address(None if on == "ray" else on)
    connect(address).shutdown()

    def start(work: Work, more: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
        argv, environment = process_of(command_of(work, more))
        if work.config is None:
            return argv, environment
        words = argv[argv.index("train") + 1 :]
        return [*argv[:2], "-m", "cluster.pipelines.on_ray", *words, "--address", address], environment

    return {"at_once": max(at_once, ALL_AT_ONCE), "start": start, "is_local": False}
