"""`seedbed plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Json, Sets
from cluster.output import command, emit, note
from seedbed.errors import EXIT_USAGE, DataError, UsageError

if TYPE_CHECKING:
    pass

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="[NUMBERx]DEVICE",
        help="Devices to plan for, such as 8xH100; 'mine' measures this machine, which is the default.",
    ),
]
Nodes = Annotated[
    int | None, typer.Option("--nodes", min=1, help="Machines, each with the devices that --on names.")
]
Price = Annotated[float | None, typer.Option("--price", min=0, help="Of one device for one hour.")]
Mttf = Annotated[
    float | None,
    typer.Option("--mttf", metavar="HOURS", min=1e-3, help="Mean time to failure of all machines together."),
]
LawFile = Annotated[
    Path | None,
    typer.Option(
        "--law", metavar="JSON", help="Of `scale fit --json`: say how it would spend the same compute."
    ),
]
Search = Annotated[bool, typer.Option("--search", help="Propose the fastest layouts that fit.")]


@command
def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a .toml file, or a run directory.")],
    on: On = None,
    nodes: Nodes = None,
    price: Price = None,
    mttf: Mttf = None,
    search: Search = False,
    law: LawFile = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """What a recipe will need, before it takes anything; for a run, predicted beside measured.

    A layout that does not fit the devices of --on is planned all the same, and refused: exit code 2, unless
    --search asks for those that do.
    """
    from cluster.render import measured_text
    from cluster.render_plan import plan_text
    from training.run_directory import is_run

    asked = {"--on": on, "--nodes": nodes, "--price": price, "--mttf": mttf, "--search": search or None}
    refused = None
    if is_run(Path(recipe)):
        value = _of_run(Path(recipe), [*asked.items(), ("--set", sets)])
    elif (count := _of_mine(on)) is not None:
        if nodes is not None:
            raise UsageError(
                f"--nodes {nodes} counts machines of the devices that --on names, and this is one machine",
                "leave it out, or name the devices: --on 8xH100",
            )
        ranks = [f"engine.num_ranks={count}"] if count else []
        value = _here(recipe, [*(sets or []), *ranks], price, mttf, search)
    else:
        assert on is not None
        value, refused = _elsewhere(recipe, sets or [], on, nodes, price, mttf, search)
    if law:
        from evals.scaling.saved import advice_for_plan

        value["compute_optimal"] = advice_for_plan(law, value)
    emit(value, json=json, render=lambda v: "\n".join(filter(None, [plan_text(v), measured_text(v)])))
    if refused:
        # The notices say why; with --json, stderr does too.
        if json:
            note(f"error: {refused}")
        raise SystemExit(EXIT_USAGE)


def _of_mine(on: str | None) -> int | None:
    """Ranks that are asked for on this machine, 0 for the recipe's; None when other devices are meant."""
    if on is None:
        return 0
    from training.catalogue import MINE, parse_devices

    count, name = parse_devices(on)
    return (count or 0) if name == MINE else None


def _of_run(path: Path, given: list[tuple[str, Any]]) -> dict[str, Any]:
    """The plan that a run was started with."""
    from training.run_directory import RunDirectory, read_json

    flags = [flag for flag, value in given if value]
    if flags:
        raise UsageError(
            "a run's plan is what it was started with", f"leave out {flags[0]}, or plan the recipe"
        )
    found = RunDirectory(path).plan_path
    value = read_json(found)
    if not value:
        raise DataError(f"{found} is missing or damaged", "plan the recipe that the run was started from")
    return value


def _here(
    recipe: str, sets: list[str], price: float | None, mttf: float | None, search: bool
) -> dict[str, Any]:
    """On this machine, measured now; with how the data will be read, where they are built."""
    from training.devices import resolve_hardware
    from training.plan import make_plan, notices, proposals
    from training.prepare import data_plan, machines_at_hand, sized
    from training.recipes import load_config

    config = sized(resolve_hardware(load_config(recipe, sets)))
    machines = machines_at_hand(config)
    value = make_plan(config, Path("runs"), machines=machines, price_per_device_hour=price, mttf_h=mttf)
    if config.data.path or config.data.paths:
        value["data"] = data_plan(config, value)
    if search:
        if machines is None:
            raise UsageError("--search: what this machine's GPU can do is not known", "add --on 8xH100")
        value["proposals"] = proposals(config, machines)
    value["notices"] = notices(value)
    return value


def _elsewhere(
    recipe: str,
    sets: list[str],
    on: str,
    nodes: int | None,
    price: float | None,
    mttf: float | None,
    search: bool,
) -> tuple[dict[str, Any], UsageError | None]:
    """(by calculation alone, without torch; why such a layout is refused)."""
    from cluster.planned_devices import placed
    from training.layout_search import shared_out
    from training.plan import layouts, make_plan, proposals, refusal

    config, machines = placed(recipe, sets, on, nodes)
    asked = config.batch.micro_batch_size
    if search:
        config = shared_out(config)
    value = make_plan(config, Path("runs"), machines=machines, price_per_device_hour=price, mttf_h=mttf)
    value["layouts"] = layouts(config, machines)
    if search:
        value["proposals"] = proposals(config, machines)
    refused = refusal(config, machines)
    # The disk here is not theirs.
    value["notices"] = [str(refused)] if refused else []
    if config.batch.micro_batch_size != asked:
        value["notices"].append(
            f"planned with batch.micro_batch_size = {config.batch.micro_batch_size}: with {asked}, ranks "
            "would be left without work"
        )
    return value, None if search else refused
