"""What a run asks of a cluster's hosts, and whether they have it. Knows nothing of Ray.

All workers of a run are alike, so that what fits on a host is a number of workers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from seedbed.errors import UsageError

STRATEGIES = ("pack", "spread", "strict-pack", "strict-spread")
"""On few hosts, on many; strict: on one host, each on a host of its own."""


@dataclass(frozen=True)
class Host:
    """A host of the cluster: what it has, and what of that nobody has reserved."""

    name: str
    total: dict[str, float]
    free: dict[str, float]


@dataclass(frozen=True)
class Placement:
    """Between `sizes[0]` and `sizes[-1]` workers, each with so many CPUs and GPUs."""

    sizes: list[int] = field(default_factory=lambda: [1])
    """The numbers of workers that the run can have, smallest first."""
    cpus: float = 1.0
    gpus: float = 0.0
    strategy: str = "pack"
    beside: int = 0
    """How many of the workers are no ranks: they have the critic, or score answers."""

    def bundle(self) -> dict[str, float]:
        """What one worker takes."""
        return {name: value for name, value in (("CPU", self.cpus), ("GPU", self.gpus)) if value}

    def largest(self, hosts: Sequence[Host], *, free: bool = True) -> int:
        """The largest of its sizes for which there is room, now or (not `free`) without others; or 0."""
        rooms = [self.room(host.free if free else host.total) for host in hosts]
        if self.strategy == "strict-pack":
            most = max(rooms, default=0)
        elif self.strategy == "strict-spread":
            most = sum(room > 0 for room in rooms)
        else:
            most = sum(rooms)
        return max((size for size in self.sizes if size <= most), default=0)

    def room(self, resources: dict[str, float]) -> int:
        """Workers that fit into `resources`."""
        return int(min((resources.get(n, 0.0) + 1e-6) // value for n, value in self.bundle().items()))

    def text(self) -> str:
        """`2 to 3 workers with 1 CPU each, spread`."""
        few, many = self.sizes[0], self.sizes[-1]
        number = f"{few} to {many} workers" if few < many else f"{many} worker{'s' * (many > 1)}"
        return f"{number} with {_amounts(self.bundle())} each, {self.strategy}"

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file, which `read` reads."""
        return asdict(self)

    @classmethod
    def read(cls, value: dict[str, Any]) -> "Placement":
        """What `as_dict` gave; `beside` had another name once."""
        return cls(**{"beside" if name == "scoring" else name: part for name, part in value.items()})


def take(hosts: Sequence[Host], placement: Placement, size: int) -> list[Host]:
    """`hosts` once `size` workers have been put on them: where exactly is Ray's to say."""
    left, taken = size, []
    at_most = 1 if placement.strategy == "strict-spread" else size
    for host in sorted(hosts, key=lambda host: -placement.room(host.free)):
        here = min(left, at_most, placement.room(host.free))
        left -= here
        free = {n: value - here * placement.bundle().get(n, 0.0) for n, value in host.free.items()}
        taken.append(Host(host.name, host.total, free))
    return taken


def check_feasible(placement: Placement, hosts: Sequence[Host]) -> None:
    """Raises UsageError, saying what is missing and what would fit, if `hosts` could never hold the run."""
    if placement.largest(hosts, free=False):
        return
    raise UsageError(
        f"{placement.text()} do not fit: {missing(placement, hosts)}", _would_fit(placement, hosts)
    )


def missing(placement: Placement, hosts: Sequence[Host]) -> str:
    """What the cluster lacks for it, if nobody else ran."""
    rooms = [placement.room(host.total) for host in hosts]
    shown = "; ".join(f"{host.name} has {_amounts(host.total)}" for host in hosts) or "there is no host"
    needed = placement.sizes[0]
    if placement.strategy == "strict-pack":
        lacking = f"no host has room for {needed}, at most for {max(rooms, default=0)}"
    elif placement.strategy == "strict-spread":
        able = sum(room > 0 for room in rooms)
        lacking = f"{needed} hosts are needed and {able} could take one, {needed - able} more"
    else:
        lacking = f"there is room for {sum(rooms)}, {needed - sum(rooms)} too few"
    return f"{lacking} ({shown})"


def _would_fit(placement: Placement, hosts: Sequence[Host]) -> str:
    for strategy in dict.fromkeys((placement.strategy, placement.strategy.removeprefix("strict-"))):
        sizes = list(range(1 + placement.beside, placement.sizes[-1] + 1))
        if most := Placement(sizes, placement.cpus, placement.gpus, strategy).largest(hosts, free=False):
            ranks = most - placement.beside
            return f"this would fit: --workers {ranks} --placement {strategy}; or add hosts"
    if placement.beside and any(placement.room(host.total) for host in hosts):
        return (
            f"{placement.beside} of them are beside the ranks: lower rl.critic_workers or "
            "rl.scoring_workers, ask for less for each (--cpus-per-worker), or add hosts"
        )
    most_of = {
        name: max((host.total.get(name, 0.0) for host in hosts), default=0.0) for name in placement.bundle()
    }
    return (
        f"no host can take even one worker: the largest has {_amounts(most_of)}; ask for less, or add hosts"
    )


def decide(
    waiting: Sequence[tuple[str, int, Placement]], hosts: Sequence[Host]
) -> tuple[list[str], dict[str, str]]:
    """(names to start now, why each of the others waits) of (name, priority, placement), first in line first.

    Who could run but for others is not overtaken; who could not run even alone holds nobody up.
    """
    starting: list[str] = []
    reasons: dict[str, str] = {}
    blocker = ""
    for number, (name, priority, placement) in enumerate(waiting, 1):
        if not placement.largest(hosts, free=False):
            reasons[name] = f"{placement.text()} do not fit: {missing(placement, hosts)}"
        elif blocker:
            reasons[name] = f"{number} of {len(waiting)} in the queue (priority {priority}), behind {blocker}"
        elif size := placement.largest(hosts):
            starting.append(name)
            hosts = take(hosts, placement, size)
        else:
            blocker = name
            free = "; ".join(f"{host.name} {_free_of(host, placement)}" for host in hosts)
            reasons[name] = f"next in the queue: needs {placement.text()}; free now: {free}"
    return starting, reasons


def _free_of(host: Host, placement: Placement) -> str:
    return ", ".join(
        f"{max(0.0, host.free.get(name, 0.0)):g} of {host.total.get(name, 0.0):g} {name}"
        for name in placement.bundle()
    )


def _amounts(resources: dict[str, float]) -> str:
    named = [(name, resources[name]) for name in ("CPU", "GPU") if name in resources]
    return " and ".join(f"{value:g} {name}" for name, value in named) or "no CPU and no GPU"
