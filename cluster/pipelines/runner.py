"""A pipeline as the front door asks for it: read, looked at, run, mirrored, reported."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cluster.output import note
from cluster.pipelines import read_tables
from cluster.pipelines.driver import RECORD, Driver, Progress, total
from cluster.pipelines.graph import parse
from cluster.pipelines.mirror import MODULE
from cluster.pipelines.report import write_report
from cluster.pipelines.store import default_store
from cluster.tracking import mirrored_folder
from seedbed.errors import Preempted, SeedbedError, StoppedUnsaved, UsageError
from training.run_directory import RunDirectory, read_json
from training.tracking import default_uri


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
    how: Mapping[str, Any],
    mlflow: str = "",
    experiment: str = "seedbed",
) -> dict[str, Any]:
    """Make what is not done, as `places.place_to_train` says how; raises what a stage that fails says."""
    driver = _driver(name, out, store, sets, price, redo, **how)
    driver.look()
    with mirrored_programme(driver.folder, mlflow, experiment):
        driver.run()
    return {
        "pipeline": driver.pipeline.name,
        "state": "done",
        "report": str(driver.folder / "report.html"),
        **described(driver),
    }


@contextmanager
def mirrored_programme(folder: Path, mlflow: str, experiment: str) -> Iterator[None]:
    """Hold `folder`, and mirror what is done in it to the server `mlflow`; "" is an SQLite file beside it,
    "none" nothing.

    However it ends, the folder has a report and says so before the mirror sends its last. Raises UsageError
    for a folder that cannot be made, or that another command holds.
    """
    status = RunDirectory(folder)
    try:
        lock = status.lock()
    except UsageError as error:
        raise UsageError(error.message, "wait for it, or choose another folder: --out") from None
    with lock:
        status.write_status("running", 0)
        uri = mlflow or default_uri(folder)
        with nullcontext() if mlflow == "none" else mirrored_folder(folder, uri, experiment, MODULE):
            state, message = "failed", "interrupted"
            try:
                yield
                state, message = "finished", ""
            except SeedbedError as error:
                state, message = "failed", error.message
                if isinstance(error, Preempted | StoppedUnsaved):
                    state = "preempted"
                raise
            finally:
                _report_quietly(folder)
                status.write_status(state, 0, message)


def _report_quietly(folder: Path) -> None:
    """How it ended matters more than the page about it."""
    try:
        if record := read_json(folder / RECORD):
            write_report(folder, record)
    except (OSError, SeedbedError) as error:
        note(f"! no report was written: {error}")


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
