"""Workers of a run as zero-restart Ray actors in a placement group: the launcher protocol on a cluster.

Ray supplies places and processes, the supervisor everything else. One call per worker is open while it
runs, and answered by its exit code: looking for that costs nothing on the network, and no answer is no news.
"""

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.placement import Host, Placement
from cluster.ray_actors import WorkerHost
from cluster.ray_hosts import group_name, hosts
from seedbed.errors import EXIT_OTHER, UsageError
from seedbed.files import write_atomic
from training.checkpoint.layout import list_steps
from training.launch import Worker, WorkerSpec
from training.run_directory import RunDirectory

GROUP_S = 30.0
START_S = 300.0
ANSWER_S = 4.0
STACK_S = 8.0
KILL_S = 5.0
AGAIN_S = 1.0
GROWTH_EVERY_S = 10.0
LOST = -9
"""What a worker ended with whose host or actor is gone: nobody can tell, and it is the machine's doing."""


class RayWorker:
    """A worker that an actor starts on its host."""

    def __init__(self, ray: Any, spec: WorkerSpec, place: str, actor: Any) -> None:
        self.name, self.place = spec.name, place
        self._ray, self._actor = ray, actor
        self._code: int | None = None
        self._end = actor.run.remote(spec)
        self._asked = time.monotonic()

    def poll(self) -> int | None:
        if self._code is None and self._ray.wait([self._end], timeout=0)[0]:
            try:
                self._code = int(self._ray.get(self._end))
            except self._ray.exceptions.ActorUnavailableError:
                # Nothing is known of it but that the connection broke: ask again.
                if time.monotonic() - self._asked > AGAIN_S:
                    self._end, self._asked = self._actor.wait.remote(), time.monotonic()
            except self._ray.exceptions.RayTaskError as error:
                self._code, self.place = EXIT_OTHER, f"{self.place} ({error.cause})"
            except self._ray.exceptions.RayError as error:
                why = "which was low on memory" if "OUT_OF_MEMORY" in str(error) else "which is lost"
                self._code, self.place = LOST, f"{self.place}, {why},"
        return self._code

    def terminate(self) -> None:
        if self.poll() is None:
            self._actor.terminate.remote()

    def kill(self) -> None:
        if self.poll() is None:
            self._actor.kill.remote()
            self._ray.wait([self._end], timeout=KILL_S)
        self._ray.kill(self._actor, no_restart=True)

    def is_stopped(self) -> bool:
        return bool(self._answer(self._actor.is_stopped, ANSWER_S))

    def stack(self) -> str:
        return str(self._answer(self._actor.stack, STACK_S) or "")

    def _answer(self, method: Any, timeout_s: float) -> Any:
        """What the actor says, None when it does not."""
        try:
            return self._ray.get(method.remote(), timeout=timeout_s)
        except self._ray.exceptions.RayError:
            return None


class RayLauncher:
    """Starts the workers of one run in placement groups of its own, one group for each attempt.

    `submission` is what the run's `submission.json` holds; `is_crowded` tells whether other runs wait.
    """

    # A host that is gone has to be missed by Ray first.
    last_words_s = 15.0

    def __init__(
        self, ray: Any, run: RunDirectory, submission: dict[str, Any], is_crowded: Callable[[], bool]
    ) -> None:
        self.ray, self.run = ray, run
        self.owner, self.code = submission["id"], submission["code"]
        self.placement = Placement.read(submission["placement"])
        self._is_crowded = is_crowded
        self._group: Any = None
        self._actors: list[Any] = []
        self._places: list[dict[str, Any]] = []
        self._looked = time.monotonic()
        self._had_more = False

    def make_room(self, num_ranks: int, is_given_up: Callable[[], bool]) -> int:
        """See `training.launch.Launcher`. UsageError names hosts that do not see the run directory."""
        told = ""
        while not is_given_up():
            self.close()
            size = self.placement.largest(hosts(self.ray))
            if size and self._reserve(size, is_given_up):
                self._looked, self._had_more = time.monotonic(), False
                addresses = [place["address"] for place in self._places]
                message = f"{size} worker(s) on {', '.join(dict.fromkeys(addresses))}"
                self.run.event("placed", message, hosts=list(dict.fromkeys(addresses)))
                return size
            if not told:
                told = f"waiting for room for {self.placement.text()}"
                self.run.event("waiting", told)
            self.run.write_status("waiting", max(list_steps(self.run.path), default=0), told)
            time.sleep(AGAIN_S)
        return 0

    def has_more_room(self) -> bool:
        """Looked at now and then; two looks have to agree, and nobody else wait for that room."""
        size = len(self._actors)
        if size == self.placement.sizes[-1] or time.monotonic() - self._looked < GROWTH_EVERY_S:
            return False
        self._looked = time.monotonic()
        had_more = self._had_more
        self._had_more = self.placement.largest(self._hosts_without_own()) > size and not self._is_crowded()
        return had_more and self._had_more

    def start(self, spec: WorkerSpec) -> Worker:
        rank = int(spec.name.removeprefix("rank-"))
        actor, place = self._actors[rank], self._places[rank]
        environment = {**spec.environment, **self._network(place), "PYTHONPATH": self.code}
        if self.placement.gpus:
            # Ray shows each actor its own.
            environment["SEEDBED_LOCAL_RANK"] = "0"
        spec = replace(spec, environment=environment, inherited_files=())
        return RayWorker(self.ray, spec, place["address"], actor)

    def close(self) -> None:
        """Give back what the last attempt had."""
        for actor in self._actors:
            self.ray.kill(actor, no_restart=True)
        if self._group is not None:
            self.ray.util.remove_placement_group(self._group)
        self._group, self._actors, self._places = None, [], []

    def places(self) -> Sequence[dict[str, Any]]:
        """Of each rank: its host's address and name."""
        return self._places

    def _hosts_without_own(self) -> list[Host]:
        return hosts(self.ray, without=self._own())

    def _own(self) -> Collection[str]:
        return (self._group.id.hex(),) if self._group is not None else ()

    def _network(self, place: dict[str, Any]) -> dict[str, str]:
        """How ranks meet: on loopback where all are on one host, else by the hosts' own addresses."""
        if len({other["node"] for other in self._places}) == 1:
            return {"SEEDBED_HOST": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        name = place["interface"]
        interfaces = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name} if name else {}
        return {"SEEDBED_HOST": place["address"], **interfaces}

    def _reserve(self, size: int, is_given_up: Callable[[], bool]) -> bool:
        """Places for `size` workers, all of which answer; False when there are none after all."""
        ray, util = self.ray, self.ray.util
        strategy = self.placement.strategy.upper().replace("-", "_")
        bundles = [self.placement.bundle() for _ in range(size)]
        self._group = util.placement_group(bundles, strategy=strategy, name=group_name(self.owner))
        if not _patiently(GROUP_S, is_given_up, lambda: self._group.wait(0.2)):
            return False
        remote = ray.remote(WorkerHost)
        self._actors = [
            remote.options(
                num_cpus=self.placement.cpus,
                num_gpus=self.placement.gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=8,
                scheduling_strategy=util.scheduling_strategies.PlacementGroupSchedulingStrategy(
                    self._group, placement_group_bundle_index=index
                ),
            ).remote()
            for index in range(size)
        ]
        seal, content = self.run.path / "seal", secrets.token_hex(8)
        write_atomic(seal, content)
        answers = [actor.look.remote(str(seal), content) for actor in self._actors]
        if not _patiently(
            START_S, is_given_up, lambda: len(ray.wait(answers, num_returns=size, timeout=0.2)[0]) == size
        ):
            return False
        try:
            # Ranks of one host lie side by side.
            order = sorted(zip(ray.get(answers), self._actors, strict=True), key=lambda pair: pair[0]["node"])
            self._places, self._actors = [place for place, _ in order], [actor for _, actor in order]
        except ray.exceptions.RayError as error:
            self.run.event("placement_failed", f"a place could not be used: {str(error).splitlines()[0]}")
            return False
        self._refuse_blind(seal)
        return True

    def _refuse_blind(self, seal: Path) -> None:
        blind = sorted({f"{p['address']} ({p['host']})" for p in self._places if not p["sees"]})
        if blind:
            self.close()
            raise UsageError(
                f"host(s) {', '.join(blind)} do not see the run directory {self.run.path}",
                "mount the storage that holds it there, at the same path",
            )


def _patiently(timeout_s: float, is_given_up: Callable[[], bool], is_done: Callable[[], bool]) -> bool:
    """Whether `is_done`, which waits a little by itself, came true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not is_given_up():
        if is_done():
            return True
    return False
