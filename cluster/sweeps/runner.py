"""A sweep from its first point to its table.

Its points are stages that depend on nothing (`cluster.pipelines`): kept by content, skipped when they are
done, gone on with where they were killed, `at_once` of them as local processes, or all in the queue of a
Ray cluster. Without Ray Tune: that has a restarter, checkpoints and schedulers of its own, and here the
supervisor of a run is the only one that starts it again, from the checkpoints of which there is one kind.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.pipelines import read_tables
from cluster.pipelines.driver import Driver
from cluster.pipelines.graph import Pipeline
from cluster.pipelines.making import Start, local_start
from cluster.pipelines.store import default_store
from cluster.sweeps.points import Sweep, parse_sweep
from cluster.sweeps.results import loss_at, row_of, write_csv
from seedbed.errors import ConfigError, Preempted, StoppedUnsaved
from seedbed.files import write_json

TABLE = "table.csv"
RECORD = "sweep.json"


class SweepRunner:
    """One sweep in its folder."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        store: Path,
        *,
        at_once: int = 1,
        start: Start = local_start,
        is_local: bool = True,
        price: float | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.sweep, self.folder, self.tell, self.price = sweep, folder.absolute(), tell, price
        self._how: dict[str, Any] = {"at_once": at_once, "start": start, "is_local": is_local, "price": price}
        self.store = store
        self._rows: dict[str, dict[str, Any]] = {}
        self.driver = self._driver(list(sweep.points))
        self.on_change: Callable[[], None] = lambda: None

    def _driver(self, names: list[str], pause_at: int = 0) -> Driver:
        stages = self.sweep.stages()
        pipeline = Pipeline(
            self.sweep.name,
            self.sweep.description,
            {name: stages[name] for name in names},
            self.sweep.inputs,
        )
        how = {**self._how, "keeps_going": True, "pause_at": pause_at, "record": ""}
        return Driver(pipeline, self.folder, self.store, **how)

    def look(self) -> None:
        """Refuse what cannot be a sweep. A point whose settings are refused is reported as failed.

        Raises the first point's ConfigError when all are refused.
        """
        self.driver.look()
        if all(progress.state == "failed" for progress in self.driver.stages.values()):
            first = next(iter(self.driver.stages.values()))
            raise ConfigError(f"no point can be run: {first.message}", "correct recipe, [set] and axes")
        self.driver.estimate()

    @property
    def steps(self) -> int:
        """Of the longest point."""
        works = [progress.work for progress in self.driver.stages.values()]
        return max((work.config.run.steps for work in works if work and work.config), default=0)

    def rungs(self) -> list[tuple[int, int]]:
        """(steps, points) of each rung; one rung without halving."""
        count, halving = len(self.sweep.points), self.sweep.halving
        if halving is None:
            return [(self.steps, count)]
        found = []
        for steps in halving.rungs(self.steps):
            found.append((steps, count))
            count = halving.kept(count)
        return found

    def cost(self) -> dict[str, Any]:
        """Of what is left, in all. Points of a rung that are not known yet are taken to cost the mean."""
        left = [p.estimate for p in self.driver.stages.values() if p.state in ("waiting", "paused")]
        value: dict[str, Any] = {"points": len(self.sweep.points), "to_run": len(left)}
        value["rungs"] = [{"steps": steps, "points": count} for steps, count in self.rungs()]
        whole, before, share = self.steps, 0, 0.0
        for steps, count in self.rungs():
            share += count * (steps - before) / max(1, whole) / len(self.sweep.points)
            before = steps
        for name in ("seconds", "device_hours", "price"):
            figures = [estimate.get(name) for estimate in left]
            known = all(figure is not None for figure in figures)
            value[name] = share * sum(f for f in figures if f is not None) if known else None
        if value["seconds"] is not None:
            value["seconds"] /= self._how["at_once"]
        value["basis"] = sorted({estimate["basis"] for estimate in left})
        return value

    def run(self) -> dict[str, Any]:
        """Run what is not done; the record, as `--json` shows it. Raises Preempted when it was stopped."""
        names = [name for name, progress in self.driver.stages.items() if progress.state != "failed"]
        rungs = self.rungs()
        self._write("running")
        state = "failed"
        try:
            for number, (steps, _) in enumerate(rungs):
                is_last = number == len(rungs) - 1
                self._climb(names, 0 if is_last else steps)
                if not is_last:
                    names = self._best(names, steps)
            state = "done"
        except (Preempted, StoppedUnsaved):
            state = "stopped"
            raise
        finally:
            value = self._write(state)
        return value

    def _climb(self, names: list[str], pause_at: int) -> None:
        """Have the points reach a rung."""
        driver = self._driver(names, pause_at)
        driver.on_change = lambda: self._take(driver)
        driver.look()
        driver.run()
        self._take(driver)

    def _take(self, driver: Driver) -> None:
        self.driver.stages.update(driver.stages)
        self._write("running")

    def _best(self, names: list[str], steps: int) -> list[str]:
        assert self.sweep.halving is not None
        scores = {}
        for name in names:
            progress = self.driver.stages[name]
            row = row_of(name, {}, progress)
            if row["state"] in ("done", "paused") and progress.work:
                loss = loss_at(progress.work.place.out, steps)
                if loss is not None:
                    scores[name] = loss
        kept = sorted(scores, key=lambda name: (scores[name], name))[: self.sweep.halving.kept(len(names))]
        self.tell(f"rung of {steps} steps: {len(names)} points, going on with {', '.join(kept) or 'none'}")
        return kept

    def value(self, state: str) -> dict[str, Any]:
        """What `--json` shows."""
        rows = [self._row(name) for name in self.sweep.points]
        return {
            "sweep": self.sweep.name,
            "description": self.sweep.description,
            "recipe": self.sweep.recipe,
            "state": state,
            "folder": str(self.folder),
            "csv": str(self.folder / TABLE),
            "settings": self.settings,
            "points": rows,
            "stages": {name: progress.as_dict() for name, progress in self.driver.stages.items()},
            "made": [name for name, progress in self.driver.stages.items() if progress.was_made],
        }

    def _row(self, name: str) -> dict[str, Any]:
        """Of a point that is done, it is read once."""
        progress = self.driver.stages[name]
        if progress.state == "done" and name in self._rows:
            return self._rows[name]
        row = row_of(name, self.sweep.points[name], progress)
        if progress.state == "done":
            self._rows[name] = row
        return row

    @property
    def settings(self) -> list[str]:
        """What differs between points."""
        return list(dict.fromkeys(key for own in self.sweep.points.values() for key in own))

    def _write(self, state: str) -> dict[str, Any]:
        value = self.value(state)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_csv(self.folder / TABLE, value["points"], self.settings)
        write_json(self.folder / RECORD, value)
        self.on_change()
        return value


def make_runner(
    name: str, *, out: Path | None, store: Path | None, sets: Sequence[str], **how: Any
) -> SweepRunner:
    """The sweep of that name or path, looked at."""
    sweep = parse_sweep(read_tables(name, "cluster.sweeps", "sweep"), Path(name).stem, sets)
    folder = out or Path("runs") / sweep.name
    kept = store.expanduser().absolute() if store else default_store()
    runner = SweepRunner(sweep, folder, kept, **how)
    runner.look()
    return runner
