"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print JSON documents on stdout, one a line, and nothing else there.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as run.steps=200. Repeatable."),
]
RunOrStep = Annotated[
    Path, typer.Argument(metavar="RUN_OR_STEP", help="A run directory or a checkpoints/step-N.")
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
