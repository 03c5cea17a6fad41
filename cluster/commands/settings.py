"""`seedbed settings`: every field of a configuration, what it means and what it is unless set."""

from typing import Annotated, Any, get_args

import typer

from cluster.commands.options import Json
from cluster.output import command, emit
from seedbed.errors import UsageError, did_you_mean


@command
def settings(
    section: Annotated[str, typer.Argument(help="One table, such as data; all without.")] = "",
    json: Json = False,
) -> None:
    """List the settings that a recipe or --set may give: meaning, default, and what a resume may change."""
    from models.families import CONFIGS
    from training.config import kind_of, section_models

    sections = section_models()
    # What [model] holds depends on the family; all fields are listed, with the kind of model they are for.
    tables = [(name, "", table) for name, table in sections.items() if name != "model"]
    tables += [("model", kind, table) for kind, table in CONFIGS.items()]
    if section and section not in sections:
        raise UsageError(
            f"there is no table [{section}]",
            did_you_mean(section, sections, f"the tables are: {', '.join(sections)}"),
        )
    rows: list[dict[str, Any]] = [
        {
            "name": f"{name}.{field}",
            "of": of,
            "default": info.get_default(call_default_factory=True),
            "choices": [choice for choice in get_args(info.annotation) if isinstance(choice, str)],
            "kind": kind_of(name, field),
            "meaning": " ".join((info.description or "").split()),
        }
        for name, of, model in tables
        if section in ("", name)
        for field, info in model.model_fields.items()
    ]
    emit({"settings": rows}, json=json, render=_shown)


def _shown(value: dict[str, Any]) -> str:
    return "\n".join(
        f"{row['name']} = {row['default']!r}  ({', '.join(filter(None, (row['of'], row['kind'])))})\n"
        f"    {row['meaning']}" + (f" One of {', '.join(row['choices'])}." if row["choices"] else "")
        for row in value["settings"]
    )
