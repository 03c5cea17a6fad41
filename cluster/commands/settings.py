"""`seedbed settings`: every field of a configuration, what it means and what it is unless set."""

from typing import Annotated, Any

import typer

from cluster.commands.options import Json
from cluster.output import command, emit
from seedbed.errors import UsageError, nearest


@command
def settings(
    section: Annotated[str, typer.Argument(help="One table, such as data; all without.")] = "",
    json: Json = False,
) -> None:
    """List the settings that a recipe or --set may give: meaning, default, and what a resume may change."""
    from training.config import Config, kind_of

    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    if section and section not in sections:
        close = nearest(section, sections)
        raise UsageError(
            f"there is no table [{section}]",
            f"did you mean {close}?" if close else f"the tables are: {', '.join(sections)}",
        )
    rows: list[dict[str, Any]] = [
        {
            "name": f"{name}.{field}",
            "default": info.get_default(call_default_factory=True),
            "kind": kind_of(name, field),
            "meaning": " ".join((info.description or "").split()),
        }
        for name, model in sections.items()
        if section in ("", name)
        for field, info in model.model_fields.items()  # type: ignore[union-attr]
    ]
    emit({"settings": rows}, json=json, render=_shown)


def _shown(value: dict[str, Any]) -> str:
    return "\n".join(
        f"{row['name']} = {row['default']!r}  ({row['kind']})\n    {row['meaning']}"
        for row in value["settings"]
    )
