"""The hosts of a Ray cluster, as reservations leave them at this moment."""

import secrets
from collections.abc import Collection
from typing import Any

from cluster.placement import Host

KINDS = ("CPU", "GPU", "memory")
GONE = ("REMOVED",)


def group_name(owner: str) -> str:
    """A new name for a placement group of the run that was submitted as `owner`."""
    return f"seedbed:{owner}:{secrets.token_hex(3)}"


def group_owner(name: str) -> str:
    """The run that a placement group's name tells of; empty when it is none of ours."""
    ours, _, rest = (name or "").partition(":")
    return rest.rpartition(":")[0] if ours == "seedbed" else ""


def hosts(ray: Any, without: Collection[str] = (), table: dict[str, Any] | None = None) -> list[Host]:
    """Living hosts; placement groups `without` (ids in hex) count as if they were not.

    `table` is Ray's of placement groups, if it was read already.

    Reservations are read from where they are made: what each host reports of itself lags behind.
    """
    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    total = {
        node: {kind: float(found["Resources"].get(kind, 0.0)) for kind in KINDS}
        for node, found in alive.items()
    }
    free = {node: dict(resources) for node, resources in total.items()}
    table = ray.util.placement_group_table() if table is None else table
    for identity, group in table.items():
        if group["state"] in GONE or identity in without:
            continue
        for index, bundle in group["bundles"].items():
            place = free.get(group["bundles_to_node_id"].get(index) or "", {})
            for kind in place.keys() & bundle.keys():
                place[kind] -= float(bundle[kind])
    names = {node: str(found["NodeManagerAddress"]) for node, found in alive.items()}
    return [
        Host(names[node], total[node], free[node]) for node in sorted(alive, key=lambda node: names[node])
    ]
