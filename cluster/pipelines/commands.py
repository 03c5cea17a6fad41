"""Which commands a stage may be: those of the command line that make something."""

from functools import cache
from typing import Any

from cluster.pipelines.stage import Stage
from seedbed.errors import ConfigError, did_you_mean

NOT_STAGES = (
    "pipeline", "sweep", "submit", "list", "status", "logs", "top", "stop", "resume", "cluster", "demo",
    "doctor",
)  # fmt: skip
"""They look at runs, or start what has a place and an order of its own."""


def check_command(stage: Stage) -> None:
    """Raises ConfigError for a stage whose command, or an option that is set, does not exist."""
    known = _commands()
    words = [word for word in stage.command[:2] if not word.startswith(("-", "{"))]
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
    if name is None or name.split()[0] in NOT_STAGES:
        raise ConfigError(
            f"stage '{stage.name}': `{' '.join(words)}` is no command that makes an artefact",
            did_you_mean(
                " ".join(words), known, "such as train, data build, data judge, eval or export", "`{}`"
            ),
        )
    options = known[name]
    given = [f"--{key.replace('_', '-')}" for key in stage.settings if "." not in key]
    given += [word.partition("=")[0] for word in stage.command if word.startswith("--")]
    for option in given:
        if option not in options:
            raise ConfigError(
                f"stage '{stage.name}': `{name}` has no option {option}",
                did_you_mean(option, options, f"it has {', '.join(sorted(options))}"),
            )
    if any("." in key for key in stage.settings) and "--set" not in options:
        dotted = next(key for key in stage.settings if "." in key)
        raise ConfigError(
            f"stage '{stage.name}': `{name}` takes no --set, and {dotted} is a setting",
            f"its options are {', '.join(sorted(options))}",
        )


@cache
def _commands() -> dict[str, set[str]]:
    """`data build` -> its options."""
    import typer

    from cluster.main import app

    found: dict[str, set[str]] = {}

    def walk(command: Any, path: list[str]) -> None:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                walk(child, [*path, name])
        else:
            found[" ".join(path)] = {option for part in command.params for option in part.opts}

    walk(typer.main.get_command(app), [])
    return {name: options for name, options in found.items() if name.split()[0] not in NOT_STAGES}
