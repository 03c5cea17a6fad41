"""Pipelines and sweeps as people read them."""

from typing import Any

from cluster.render import group, table
from seedbed.progress import human_bytes, human_time


def pipeline_text(value: dict[str, Any]) -> Any:
    """The graph: what is done, what is to be made and what that takes."""
    rows = []
    for stage in value["stages"]:
        figures = stage["estimate"] if stage["state"] != "done" and stage["estimate"] else stage
        rows.append(
            {
                "stage": stage["stage"],
                "of": ", ".join(stage["needs"]) or "-",
                "": stage["plan"] if stage["state"] in ("done", "waiting") else stage["state"],
                "artefact": f"{stage['kind']} {stage['digest'][:12]}" if stage.get("digest") else None,
                "takes": _time(figures.get("seconds")),
                "device-hours": figures.get("device_hours"),
                "price": figures.get("price"),
                "by": (stage["estimate"] or {}).get("basis") if stage["state"] != "done" else "measured",
            }
        )
    columns = ("stage", "of", "", "artefact", "takes", "device-hours", "price", "by")
    return group(
        f"{value['pipeline']}: {value['description']}",
        table(rows, columns),
        _total(value["total"]) if value["state"] == "planned" else f"{value['state']}: {value['folder']}",
    )


def _total(sums: dict[str, Any]) -> str:
    if sums["seconds"] is None:
        return "in all: not known before every stage was measured, or its data are there"
    price = "" if sums["price"] is None else f", price {sums['price']:,.2f}"
    return (
        f"in all: {_time(sums['seconds'])}, {sums['device_hours']:.3g} device-hours{price}, "
        f"{human_bytes(sums['bytes'])} of disk"
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else human_time(seconds)


def cost_text(cost: dict[str, Any]) -> str:
    """What a sweep will take, in a line."""
    rungs = cost["rungs"]
    how = f"{cost['points']} points, {cost['to_run']} to run"
    if len(rungs) > 1:
        how += "; " + ", ".join(f"{rung['points']} to step {rung['steps']}" for rung in rungs)
    if cost["seconds"] is None:
        return f"{how}; cost not known"
    price = "" if cost["price"] is None else f", price {cost['price']:,.2f}"
    basis = f" ({'; '.join(cost['basis'])})" if cost["basis"] else ""
    return f"{how}: {_time(cost['seconds'])}, {cost['device_hours']:.3g} device-hours{price}{basis}"


def sweep_text(value: dict[str, Any]) -> Any:
    """The table of a sweep's points, the best first, what is no result last."""
    order = {"done": 0, "paused": 1}
    rows = sorted(
        value["points"], key=lambda row: (order.get(row["state"], 2), row.get("loss") or 0.0, row["point"])
    )
    figures = ("state", "steps", "N", "D", "C", "loss", "device_hours", "message")
    shown = [{**row, "C": row.get("C") and float(row["C"])} for row in rows]
    return group(
        f"{value['sweep']}: {value['description'] or value['recipe']}",
        table(shown, ("point", *value["settings"], *figures)),
        cost_text(value["cost"]) if value["state"] == "planned" else f"table: {value['csv']}",
    )
