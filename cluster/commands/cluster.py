"""`seedbed cluster`, `submit`, `status`, `logs`, `stop`, `resume`: runs on a cluster, and runs in general."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Json, JsonLines, Sets
from cluster.output import command, emit, emit_line, note
from seedbed.errors import SeedbedError, UsageError

if TYPE_CHECKING:
    from cluster.run_access import Access

app = typer.Typer(help="Start, stop and look at a Ray node on this machine.", no_args_is_help=True)

Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The cluster. Default: $RAY_ADDRESS, or the one started here."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or its name in ./runs.")]


@app.command("up")
@command
def up(
    host: Annotated[str, typer.Option(help="This machine's address for other hosts.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Default: any that is free.")] = 0,
    join: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Become one more host of that cluster.")
    ] = None,
    num_cpus: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    num_gpus: Annotated[int | None, typer.Option(help="Default: all.")] = None,
    dashboard_host: Annotated[str, typer.Option(help="Where the dashboard listens.")] = "127.0.0.1",
    expose_dashboard: Annotated[
        bool, typer.Option("--expose-dashboard", help="Allow a --dashboard-host that others reach.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a Ray node here, with a token and on loopback unless told otherwise."""
    from cluster.ray_connect import import_ray
    from cluster.ray_local import up as start

    import_ray()
    value = start(
        host=host,
        port=port,
        join=join,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        dashboard_host=dashboard_host,
        expose_dashboard=expose_dashboard,
    )
    emit(value, json=json, render=_up_text)


def _up_text(value: dict[str, Any]) -> str:
    state = "started" if value["started"] else "was up already"
    dashboard = value["dashboard"] or "none (pip install 'ray[default]')" * value["is_head"]
    return "\n".join(
        [
            f"cluster {value['address']} {state}; token in {value['token']}",
            *([f"dashboard: {dashboard}"] if dashboard else []),
            "next:",
            "  seedbed submit gpt-demo",
            "  seedbed cluster status",
            "  seedbed cluster down",
        ]
    )


@app.command("down")
@command
def down(
    now: Annotated[
        bool, typer.Option("--now", help="Even while runs are on it: they can be resumed.")
    ] = False,
    json: Json = False,
) -> None:
    """End the Ray node that `up` started here; stop the runs on it first."""
    from cluster.ray_local import down as end
    from cluster.ray_local import running_node

    node = running_node()
    if node and node["is_head"]:
        _end_runs(node["address"], now=now)
    emit(
        end(),
        json=json,
        render=lambda v: (
            f"stopped {v['stopped']} process(es) of {v['address']}" if v["address"] else "nothing was up"
        ),
    )


def _end_runs(address: str, *, now: bool) -> None:
    from cluster.ray_connect import connect
    from cluster.ray_controller import end_runs

    try:
        end_runs(connect(address), now=now)
    except UsageError:
        raise
    except SeedbedError as error:
        if not now:
            raise SeedbedError(
                f"what runs on the cluster is unknown: {error.message}", "try again, or say --now"
            ) from None
        note(f"! {error.message}")
    finally:
        _disconnect()


@app.command("status")
@command
def cluster_status(address: Address = None, json: Json = False) -> None:
    """Hosts, what is free on them, and the queue."""
    from cluster.ray_connect import connect, find_address
    from cluster.ray_controller import ask, find_controller
    from cluster.ray_local import describe

    address = find_address(address)
    try:
        value = describe(address)
        ray = connect(address)
        controller = find_controller(ray)
        value["controller"] = ask(ray, controller.state.remote()) if controller else None
    except SeedbedError as error:
        if isinstance(error, UsageError):
            raise
        message = f"{error.message}\n  fix: {error.fix}" if error.fix else error.message
        value = {"state": "unknown", "address": address, "hosts": [], "message": message}
    finally:
        _disconnect()
    emit(value, json=json, render=_cluster_text)
    if value["state"] == "unknown":
        raise SystemExit(1)


def _cluster_text(value: dict[str, Any]) -> str:
    lines = [
        f"cluster {value['address']}: {value['state']}"
        + (f" - {value['message']}" if "message" in value else "")
    ]
    for host in value["hosts"]:
        shown = [
            f"{host['free'][n]:g} of {host['total'][n]:g} {n} free"
            for n in ("CPU", "GPU")
            if host["total"][n]
        ]
        lines.append(f"  {host['name']}: {', '.join(shown)}")
    controller = value.get("controller") or {}
    if controller.get("problem"):
        lines.append(f"  ! the queue is not looked at: {controller['problem']}")
    for run in controller.get("runs", []):
        lines.append(f"  {run['run']}: " + ("running" if run["pid"] else f"waits: {run['waits']}"))
    return "\n".join(lines)


@command
def submit(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or the path of a .toml file.")],
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="On storage that all hosts see. Default: runs/RECIPE-TIME."),
    ] = None,
    address: Address = None,
    workers: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="Default: engine.num_ranks. MIN:MAX is elastic.")
    ] = "",
    cpus: Annotated[float, typer.Option("--cpus-per-worker")] = 1.0,
    gpus: Annotated[float, typer.Option("--gpus-per-worker")] = 0.0,
    placement: Annotated[
        str, typer.Option(help="pack or spread; strict-pack: one host; strict-spread: each on its own.")
    ] = "pack",
    priority: Annotated[int, typer.Option(help="The higher, the sooner.")] = 0,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", metavar="CHECKPOINT", help="Start from these weights alone.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan and placement, and do nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the plan does not fit.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run, and exit as it does.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Put a run into a cluster's queue: planned, placed, and with a copy of the code."""
    from cluster import submission
    from cluster.placement import STRATEGIES

    if placement not in STRATEGIES:
        raise UsageError(f"--placement {placement} is unknown", f"one of {', '.join(STRATEGIES)}")
    if cpus < 0 or gpus < 0 or not cpus + gpus:
        raise UsageError("a worker needs a CPU or a GPU", "--cpus-per-worker 1")
    asked = submission.Ask(address, workers, cpus, gpus, placement, priority, force)
    if dry_run:
        value = submission.dry_run(recipe, sets or [], asked)
        _disconnect()
        return emit(value, json=json, render=_dry_text)
    path = run_dir or _new_run_path(recipe)
    value = submission.submit(recipe, sets or [], path, init_from, asked)
    _disconnect()
    if not wait:
        return emit(value, json=json, render=submission.submitted_text)
    note(submission.submitted_text(value))
    return _wait(str(value["run"]), json=json)


def _new_run_path(recipe: str) -> Path:
    from datetime import datetime

    return Path("runs") / f"{Path(recipe).stem}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _dry_text(value: dict[str, Any]) -> str:
    from cluster.render_plan import plan_text

    placement = value["placement"]
    lines = [plan_text(value["plan"]), f"placement on {value['address']}: {placement['text']}"]
    lines += [
        f"  {host['name']}: {host['free']['CPU']:g} of {host['total']['CPU']:g} CPU free"
        for host in value["hosts"]
    ]
    now = placement["workers_now"]
    lines.append(f"it would start with {now} worker(s) now" if now else "it would wait in the queue now")
    return "\n".join(lines)


def _wait(run: str, *, json: bool) -> None:
    """Follow a run on stderr; the result is its status, the exit code its own."""
    from cluster.run_access import find_run, follow, wait_until_over
    from cluster.watch import status_text

    access = find_run(run)
    follow(access, ["supervisor"], {}, lambda line: note(line["line"]), to_the_end=True)
    status = wait_until_over(access)
    emit(status, json=json, render=status_text)
    if status["exit_code"]:
        raise SystemExit(status["exit_code"])


@command
def status(run: Run, address: Address = None, json: Json = False) -> None:
    """How a run is doing, by its own trainer's word; "unknown" when that cannot be heard."""
    from cluster.run_access import find_run, status_of
    from cluster.watch import status_text

    value = status_of(find_run(run, address))
    _disconnect()
    emit(value, json=json, render=status_text)


@command
def logs(
    run: Run,
    is_followed: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the run is over; reconnects by itself.")
    ] = False,
    rank: Annotated[str, typer.Option(help="Of these ranks alone: 0 or 0,3.")] = "",
    since: Annotated[str, typer.Option(help="From so long ago on: 90s, 5m, 2h.")] = "",
    start: Annotated[
        list[str] | None,
        typer.Option(metavar="LOG=OFFSET", help="Go on after the `next` of a line. Repeatable."),
    ] = None,
    address: Address = None,
    json: JsonLines = False,
) -> None:
    """What a run's processes said: every line once. --json tells where each line ends in its log.

    The supervisor tells of steps, saves and restarts; ranks have little to say while all is well.
    """
    from cluster.run_access import find_run, follow

    names = [f"rank-{number}" for number in _ranks(rank)] or None
    access = find_run(run, address)
    offsets = _offsets(start or [])
    _refuse_unknown_logs(access, {*(names or []), *offsets})
    if since:
        offsets = access.offsets_at(time.time() - _seconds(since))
    width = 10

    def tell(line: dict[str, Any]) -> None:
        emit_line(line, json=json, render=lambda value: f"{value['log']:<{width}} | {value['line']}")

    follow(access, names, offsets, tell, to_the_end=is_followed)
    _disconnect()


def _refuse_unknown_logs(access: "Access", names: set[str]) -> None:
    """Logs that are there, or may come to be: those of ranks that a run has had may be more than it has."""
    from cluster.run_access import status_of

    ranks = int(status_of(access).get("ranks", 0)) if names else 0
    odd = names - {"supervisor", *(f"rank-{number}" for number in range(ranks))}
    if ranks and odd and (odd := odd - access.lines({}, None)["offsets"].keys()):
        raise UsageError(
            f"there is no log {min(odd)}", f"there are supervisor, and rank-0 to rank-{ranks - 1}"
        )


def _ranks(text: str) -> list[int]:
    parts = [part for part in text.split(",") if part]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--rank {text} is no list of ranks", "such as --rank 0,1")
    return [int(part) for part in parts]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise UsageError(f"--since {text} is no time", "such as 90s, 5m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _offsets(assignments: list[str]) -> dict[str, int]:
    pairs = [assignment.rpartition("=") for assignment in assignments]
    for name, _, offset in pairs:
        if not (name and offset.isdecimal()):
            raise UsageError("--start takes LOG=OFFSET", "such as --start rank-0=1234")
    return {name: int(offset) for name, _, offset in pairs}


@command
def top(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Default: all in ./runs.")] = None,
    every_s: Annotated[float, typer.Option("--every", help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look.")] = False,
    address: Address = None,
    json: JsonLines = False,
) -> None:
    """Watch runs while they train: progress, rate, loss, checkpoints; Ctrl-C ends it."""
    from cluster.top import watch_runs

    watch_runs(runs or [], address, every_s=every_s, once=once, json=json)
    _disconnect()


@command
def stop(
    run: Run,
    now: Annotated[
        bool, typer.Option("--now", help="Without saving; what was saved before is kept.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Until it has stopped.")] = True,
    address: Address = None,
    json: Json = False,
) -> None:
    """Stop a run, with a checkpoint."""
    from cluster.run_access import find_run, status_of, wait_until_over
    from cluster.watch import status_text
    from training.run_directory import TERMINAL_STATES

    access = find_run(run, address)
    value = status_of(access)
    if value["state"] in TERMINAL_STATES:
        again = "--set run.steps=N makes it longer" if value["state"] == "finished" else "goes on with it"
        raise UsageError(f"{run} is not running: {value['state']}", f"seedbed resume {run} {again}")
    if value["state"] == "unknown":
        raise SeedbedError(
            f"{run} cannot be asked to stop: {value['message']}",
            "try again when it answers; if it is gone for good, seedbed resume goes on elsewhere",
        )
    access.stop(now=now)
    value = wait_until_over(access) if wait else status_of(access)
    _disconnect()
    emit(value, json=json, render=status_text)


@command
def resume(run: Run, address: Address = None, sets: Sets = None, json: Json = False) -> None:
    """Go on with a run where and as it was started, from its newest checkpoint."""
    from cluster import submission
    from cluster.queue import SUBMISSION
    from cluster.run_access import RUNS
    from training.run_directory import RunDirectory, is_run

    path = next((path for path in (Path(run), RUNS / run) if is_run(path)), Path(run))
    directory = RunDirectory.existing(path.absolute())
    if (path / SUBMISSION).is_file():
        value = submission.resume(directory, sets or [], address)
        _disconnect()
        return emit(value, json=json, render=submission.submitted_text)
    from cluster.commands.train import train

    return train(resume=path, sets=sets, json=json)


def _disconnect() -> None:
    """Leave the cluster, if it was entered: Ray would otherwise take a second to do so at exit."""
    import sys

    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
