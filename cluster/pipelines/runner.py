"""A pipeline as the front door asks for it: read, looked at, run, mirrored, reported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.pipelines import read_tables
from cluster.pipelines.driver import Driver, Progress, total
from cluster.pipelines.graph import parse
from cluster.pipelines.store import default_store


def dry(
    name: str,
    *,
    out: Path | None,
    store: Path | None,
    sets: Sequence[str],
    price: float | None,
    redo: Sequence[str],
) -> dict[str, Any]:
    """The graph with what each stage will take; refuses what `run` would refuse before it starts."""
    driver = _driver(name, out, store, sets, price, redo)
    driver.look()
    driver.estimate()
    return {"pipeline": driver.pipeline.name, "state": "planned", **described(driver)}


def run(
    name: str,
    *,
    out: Path | None,
    store: Path | None,
    sets: Sequence[str],
    price: float | None,
    redo: Sequence[str],
    at_once: int,
    on: str,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Make what is not done; raises what the first stage that fails says."""
    driver = _driver(name, out, store, sets, price, redo, at_once=at_once)
    driver.look()
    driver.run()
    return {"pipeline": driver.pipeline.name, "state": "done", **described(driver)}


def _driver(
    name: str,
    out: Path | None,
    store: Path | None,
    sets: Sequence[str],
    price: float | None,
    redo: Sequence[str],
    **more: Any,
) -> Driver:
    pipeline = parse(read_tables(name), Path(name).stem, sets)
    folder = out or Path("runs") / pipeline.name
    kept = store.expanduser().absolute() if store else default_store()
    return Driver(pipeline, folder, kept, redo=tuple(redo), price=price, **more)


def described(driver: Driver) -> dict[str, Any]:
    """What `--json` shows of a pipeline."""
    stages = []
    for name, progress in driver.stages.items():
        stage = driver.pipeline.stages[name]
        stages.append(
            {
                "stage": name,
                "command": " ".join(stage.command),
                "needs": stage.inputs,
                "plan": _plan(driver, name, progress),
                **progress.as_dict(),
            }
        )
    return {
        "description": driver.pipeline.description,
        "folder": str(driver.folder),
        "store": str(driver.store),
        "stages": stages,
        "total": {key: total(driver.stages, key) for key in ("seconds", "device_hours", "price", "bytes")},
    }


def _plan(driver: Driver, name: str, progress: Progress) -> str:
    """What will be done about a stage, in a word or two."""
    if progress.state == "done":
        return "made" if progress.was_made else "done before"
    if progress.work is None:
        waits = [needed for needed in driver.pipeline.stages[name].inputs if driver.is_open(needed)]
        return f"to be made, after {', '.join(waits)}"
    return (
        "to be gone on with" if progress.work.goes_on and progress.work.place.out.exists() else "to be made"
    )
