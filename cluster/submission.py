"""Submitting a run to a cluster: planned, placed, prepared, its code copied, then put into the queue."""

import math
import secrets
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from cluster.output import note
from cluster.placement import Host, Placement, check_feasible
from cluster.queue import FOLDER as QUEUE
from cluster.queue import SUBMISSION, Entry
from cluster.ray_connect import connect, find_address
from cluster.ray_controller import ask, get_controller
from cluster.ray_hosts import hosts
from cluster.runner import announce
from cluster.snapshot import FOLDER as CODE
from cluster.snapshot import snapshot_text, take_snapshot
from seedbed.errors import ConfigError, UsageError
from seedbed.files import write_json
from training import prepare
from training.batch_layout import batch_layout
from training.catalogue import known_gpu
from training.checkpoint.layout import list_steps
from training.config import Config
from training.run_directory import TERMINAL_STATES, RunDirectory, is_run, read_json


@dataclass(frozen=True)
class Ask:
    """What a user wants of a cluster."""

    address: str | None = None
    workers: str = ""
    """Ranks: `3`, or `1:3` for an elastic run; empty for the recipe's engine.num_ranks."""
    cpus: float = 1.0
    gpus: float = 0.0
    strategy: str = "pack"
    priority: int = 0
    force: bool = False


def dry_run(recipe: str, sets: list[str], ask_: Ask) -> dict[str, Any]:
    """{"plan", "address", "placement", "hosts"}; raises what `submit` would before it takes anything."""
    from training.plan import notices

    address = find_address(ask_.address)
    available = hosts(connect(address))
    plan, placement = _planned(recipe, sets, ask_, available)
    return {"plan": {**plan, "notices": notices(plan)}, "address": address, **_placed(placement, available)}


def submit(
    recipe: str,
    sets: list[str],
    run_path: Path,
    init_from: Path | None,
    ask_: Ask,
    branch_from: Path | None = None,
) -> dict[str, Any]:
    """Put a new run into the cluster's queue; returns what `submitted_text` shows.

    Raises UsageError when the name is taken, the placement never fits or the plan does not, Unreachable
    when there is no cluster.
    """
    run_path = run_path.absolute()
    if is_run(run_path):
        state = RunDirectory(run_path).status()["state"]
        verb = "go on with it: seedbed resume" if state in TERMINAL_STATES else "look at it: seedbed status"
        raise UsageError(
            f"{run_path} holds a run already ({state})", f"{verb} {run_path}; or choose another --run-dir"
        )
    address = find_address(ask_.address)
    ray = connect(address)
    _, placement = _planned(recipe, sets, ask_, hosts(ray))
    with RunDirectory(run_path).lock():
        try:
            settings = _settings(recipe, sets, ask_)
            run, notices = prepare.start(recipe, settings, run_path, init_from, branch_from)
        except BaseException:
            RunDirectory(run_path).discard_if_unused()
            raise
        announce(run, notices)
        code, record = take_snapshot(run_path, Path.cwd())
        _write(run, placement, ask_, address, code)
        run.event("submitted", f"submitted to {address}: {placement.text()}; {snapshot_text(record)}")
    return {**_enqueue(ray, run, address), "code": snapshot_text(record)}


def _planned(
    recipe: str, sets: list[str], ask_: Ask, available: list[Host]
) -> tuple[dict[str, Any], Placement]:
    from training.devices import resolve_hardware
    from training.plan import make_plan
    from training.recipes import load_config

    asked = load_config(recipe, _settings(recipe, sets, ask_))
    placement = place(asked, ask_)
    check_feasible(placement, available)
    config = prepare.sized(resolve_hardware(asked))
    plan = make_plan(config, Path("runs"), machines=prepare.machines_at_hand(config))
    check_plan(plan, available, force=ask_.force)
    return plan, placement


def resume(run: RunDirectory, sets: list[str], address: str | None = None) -> dict[str, Any]:
    """Put a run that was submitted into the queue again, with what it asked for then."""
    submission = read_json(run.path / SUBMISSION)
    address = find_address(address or _still_there(submission))
    ray = connect(address)
    if run.status()["state"] == "finished" and not sets:
        raise UsageError(
            f"{run.path.name} has finished, at step {run.config().run.steps}",
            f"seedbed resume {run.path} --set run.steps=N, with a larger number, makes it longer",
        )
    with _lock(run):
        announce(*prepare.resume(run.path, sets))
        run.write_status("queued", max(list_steps(run.path), default=0), "submitted again")
    again = {"address": address, "submitted": time.time(), "placement": _placed_anew(run, submission)}
    write_json(run.path / SUBMISSION, {**submission, **again})
    return _enqueue(ray, run, address)


def _placed_anew(run: RunDirectory, submission: dict[str, Any]) -> dict[str, Any]:
    """The placement, with as many workers beside the ranks as the run has now."""
    placement, beside = Placement.read(submission["placement"]), run.config().num_beside
    sizes = [size - placement.beside + beside for size in placement.sizes]
    return replace(placement, sizes=sizes, beside=beside).as_dict()


def _lock(run: RunDirectory) -> IO[str]:
    """Its lock; refused with what it does instead, when it is on its way already."""
    try:
        return run.lock()
    except UsageError:
        state = run.status()["state"]
        if state in TERMINAL_STATES:
            raise
        raise UsageError(
            f"{run.path.name} is on its way already ({state})",
            f"seedbed status {run.path}, or seedbed stop {run.path} first",
        ) from None


def place(config: Config, ask_: Ask) -> Placement:
    """The placement that is asked for; raises ConfigError for numbers of workers that the recipe excludes."""
    few, _, many = (ask_.workers or str(config.engine.num_ranks)).partition(":")
    if not few.isdecimal() or (many and not many.isdecimal()) or not 1 <= int(few) <= int(many or few):
        raise UsageError(f"--workers {ask_.workers} is neither N nor MIN:MAX", "such as --workers 1:3")
    sizes, problem = [], None
    for size in range(int(few), int(many or few) + 1):
        try:
            engine = type(config.engine).model_validate({**config.engine.model_dump(), "num_ranks": size})
            batch_layout(config.model_copy(update={"engine": engine}))
        except (ConfigError, ValueError) as error:
            problem = error
        else:
            sizes.append(size)
    if not sizes or (not many and problem):
        raise (
            problem
            if isinstance(problem, ConfigError)
            else ConfigError(f"--workers {ask_.workers}: {problem}")
        )
    beside = config.num_beside
    return Placement([size + beside for size in sizes], ask_.cpus, ask_.gpus, ask_.strategy, beside)


def check_plan(plan: dict[str, Any], available: list[Host], *, force: bool) -> None:
    """Raises UsageError when memory or disk of the plan cannot suffice; `force` only says so."""
    problems = []
    needed = plan["memory_bytes_per_device"]["total"]
    where = "host" if plan["device"] == "cpu" else "GPU"
    sizes = [_memory_of(host, plan["device"]) for host in available]
    if needed > (most := max(sizes, default=0.0)):
        problems.append(
            f"a worker needs {needed / 1e9:.1f} GB of memory, the largest {where} has {most / 1e9:.1f} GB"
        )
    disk = plan["checkpoint_bytes"] * (plan["checkpoints_kept"] + 1)
    if disk > plan["disk_free_bytes"]:
        problems.append(
            f"checkpoints need {disk / 1e9:.1f} GB, the disk has {plan['disk_free_bytes'] / 1e9:.1f} GB free"
        )
    for problem in problems:
        note(f"! {problem}")
    if problems and not force:
        raise UsageError(
            f"the plan does not fit: {'; '.join(problems)}",
            "make the model, the batch or what is kept smaller, spread it over more workers; or say --force",
        )


def _memory_of(host: Host, device: str) -> float:
    """Bytes for one worker on a host: the host's own, or those of its GPUs, without end if these are unknown.

    Ray says of which kind they are by the name of a resource, such as `accelerator_type:H100`.
    """
    if device == "cpu":
        return host.total.get("memory", 0.0)
    if not host.total.get("GPU"):
        return 0.0
    kinds = [name.partition(":")[2] for name in host.total if name.startswith("accelerator_type:")]
    known = [gpu for kind in kinds if (gpu := known_gpu(kind))]
    return max((gpu.memory_bytes for gpu in known), default=math.inf)


def _settings(recipe: str, sets: list[str], ask_: Ask) -> list[str]:
    """The recipe's settings as the cluster needs them: the most workers, their cores, their device."""
    many = ask_.workers.rpartition(":")[2]
    settings = [*sets, *([f"engine.num_ranks={many}"] if many.isdecimal() and int(many) else [])]
    settings.append("engine.device=cuda" if ask_.gpus else "engine.device=cpu")
    if not any(setting.startswith("engine.threads_per_rank") for setting in sets) and ask_.cpus >= 1:
        from training.recipes import load_config

        if not load_config(recipe, settings).engine.exact:
            settings.append(f"engine.threads_per_rank={int(ask_.cpus)}")
    return settings


def _placed(placement: Placement, available: list[Host]) -> dict[str, Any]:
    now = placement.largest(available)
    return {
        "placement": {**placement.as_dict(), "text": placement.text(), "workers_now": now},
        "hosts": [{"name": host.name, "total": host.total, "free": host.free} for host in available],
    }


def _write(run: RunDirectory, placement: Placement, ask_: Ask, address: str, code: Path) -> None:
    value = {
        "id": f"{run.path.name}-{secrets.token_hex(3)}",
        "address": address,
        "placement": placement.as_dict(),
        "priority": ask_.priority,
        "code": str(code),
        "submitted": time.time(),
    }
    write_json(run.path / SUBMISSION, value)
    run.write_status("queued", 0, "submitted")


def _enqueue(ray: Any, run: RunDirectory, address: str) -> dict[str, Any]:
    submission = read_json(run.path / SUBMISSION)
    controller = get_controller(ray, run.path.parent / QUEUE, address)
    entry = Entry(
        id=submission["id"],
        run=str(run.path),
        code=str(run.path / CODE),
        placement=submission["placement"],
        priority=submission["priority"],
        submitted=submission["submitted"],
    )
    ask(ray, controller.submit.remote(asdict(entry)), 60.0)
    return {
        "id": submission["id"],
        "run": str(run.path),
        "address": address,
        "placement": Placement.read(submission["placement"]).text(),
        "priority": submission["priority"],
        "dashboards": _dashboards(run, address),
    }


def _still_there(submission: dict[str, Any]) -> str | None:
    """The address that it was submitted to, unless this machine's cluster was started anew since."""
    from cluster.ray_local import running_node

    node = running_node()
    return None if node else submission.get("address")


def _dashboards(run: RunDirectory, address: str) -> list[str]:
    from cluster.ray_connect import state_path
    from training.tracking import default_uri

    node, config = read_json(state_path()), run.config()
    shown = [f"Ray {node['dashboard']}"] if node.get("address") == address and node.get("dashboard") else []
    if config.tracking.mlflow:
        uri = config.tracking.uri or default_uri(run.path)
        is_server = uri.startswith("http")
        shown.append(
            f"MLflow {uri}" if is_server else f"mlflow ui --host 127.0.0.1 --backend-store-uri {uri}"
        )
    return shown


def submitted_text(value: dict[str, Any]) -> str:
    """What a user sees: id, dashboards, and the next three commands."""
    run = value["run"]
    lines = [
        f"submitted {value['id']} to {value['address']}: {value['placement']}, priority {value['priority']}"
    ]
    lines += [f"code: {value['code']}"] if value.get("code") else []
    lines += [f"dashboard: {shown}" for shown in value["dashboards"]]
    lines += ["next:", f"  seedbed status {run}", f"  seedbed logs -f {run}", f"  seedbed stop {run}"]
    return "\n".join(lines)
