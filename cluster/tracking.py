"""The tracker beside a run: started with it, given a moment at its end, never in its way."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from cluster.output import note
from training.run_directory import RunDirectory
from training.tracking import default_uri, finish_mirror, start_mirror, unavailable

DRAIN_S = 30.0


@contextmanager
def mirrored_folder(folder: Path, uri: str, experiment: str, module: str) -> Iterator[None]:
    """Have `module` copy what is in `folder` to MLflow, where that is installed, while it is worked on.

    The end of the work is what `status.json` there says.
    """
    process = start_mirror(folder, uri, experiment, module)
    if process is None:
        note(f"! nothing is mirrored to MLflow: {unavailable() or 'the mirror could not be started'}")
    with _finished(process, f"{module} {folder} --uri {uri} --experiment {experiment}"):
        yield


@contextmanager
def mirrored(run: RunDirectory) -> Iterator[None]:
    """Mirror `run` to MLflow, if it is wanted and installed; says so when it is wanted and cannot be."""
    config = run.config()
    if not config.tracking.mlflow:
        yield
        return
    uri = config.tracking.uri or default_uri(run.path)
    process = start_mirror(run.path, uri, config.tracking.experiment)
    if process is None:
        message = f"metrics are not mirrored to MLflow: {unavailable() or 'the mirror could not be started'}"
        run.event("tracking_off", message)
        note(f"! {message}")
    with _finished(process, f"training.tracking {run.path} --uri {uri}"):
        yield


@contextmanager
def _finished(process: Popen[bytes] | None, again: str) -> Iterator[None]:
    """Wait for a mirror at the end; `again` is the module, with its arguments, that sends the rest."""
    try:
        yield
    finally:
        if process is not None and not finish_mirror(process, DRAIN_S):
            note(
                f"! not everything reached MLflow yet; to send the rest: "
                f"{sys.executable} -P -m {again} --replay"
            )
