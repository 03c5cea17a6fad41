"""Variants of a pipeline: its stages once more for each, where they set something or are made of what does.

    [variant.small]
    gpt.model.width = 64                  # stage.section.field, or stage.option: as --set says them

    [stage.sizes]
    command = "scale by-size {score*}"    # made once, of the scores of all variants

`gpt` becomes `gpt-small`, and so does every stage that is made of it. What no variant touches is made once,
and so is what says `{name*}`, for the artefacts of all.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cluster.pipelines.stage import Stage, filled
from seedbed.errors import ConfigError, did_you_mean

_ALL = re.compile(r"\{([a-z][a-z0-9_-]*)\*\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def expanded(
    stages: Mapping[str, Stage], tables: Any, origin: str
) -> tuple[dict[str, list[str]], dict[str, Stage]]:
    """What each stage is called in its variants, and the stages of all; without any `{name*}` is `{name}`.

    Raises ConfigError for what no variant can be.
    """
    own = _settings(stages, tables, origin)
    touched = {stage for settings in own.values() for stage in settings}
    while more := {name for name, stage in stages.items() if touched & {*stage.inputs}} - touched:
        touched |= more
    copies = {
        name: [f"{name}-{variant}" for variant in own] if name in touched else [name] for name in stages
    }
    names = [*stages, *(copy for name in touched for copy in copies[name])]
    if twice := sorted(name for name in {*names} if names.count(name) > 1):
        raise ConfigError(
            f"{origin}: '{twice[0]}' is a stage, and a variant of one, or of two", "rename one of them"
        )
    found: dict[str, Stage] = {}
    for name, stage in stages.items():
        gathered = _gathering(stage, copies, origin)
        if name not in touched:
            found[name] = gathered
            continue
        for variant, settings in own.items():
            copy = _copy(gathered, variant, touched, settings.get(name, {}))
            found[copy.name] = copy
    return copies, found


def _copy(stage: Stage, variant: str, touched: set[str], settings: Mapping[str, Any]) -> Stage:
    def of(name: str) -> str:
        return f"{{{name}-{variant}}}" if name in touched else f"{{{name}}}"

    return replace(
        stage,
        name=f"{stage.name}-{variant}",
        command=tuple(filled(list(stage.command), of)),
        settings={**filled(stage.settings, of), **settings},
    )


def _settings(stages: Mapping[str, Stage], tables: Any, origin: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Variant -> stage -> its settings."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{origin}: [variant.NAME] is a table", "gpt.model.width = 64 in each")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for variant, table in tables.items():
        if not _NAME.fullmatch(variant):
            raise ConfigError(
                f"{origin}: '{variant}' cannot be a variant's name", "lower-case letters, digits, - and _"
            )
        found[variant] = {}
        for stage, given in table.items():
            if stage in stages and not isinstance(given, dict):
                raise ConfigError(
                    f"{origin}: variant '{variant}': {stage} = {given!r} is no table of settings",
                    f"such as {stage}.run.steps = 200",
                )
            if stage not in stages:
                fix = did_you_mean(stage, stages, f"its stages are: {', '.join(stages)}", "'{}'")
                raise ConfigError(f"{origin}: variant '{variant}' sets '{stage}', which is no stage", fix)
            found[variant][stage] = dict(_dotted(given))
    return found


def _dotted(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """section.field of a table, and plain values as they are: options of the stage's command."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{field}", item) for field, item in value.items())
        else:
            yield key, value


def _gathering(stage: Stage, copies: Mapping[str, list[str]], origin: str) -> Stage:
    """The stage with the artefacts of all variants in place of `{name*}`.

    Raises ConfigError where that stands within a word, or is of no stage.
    """

    def words(value: str) -> list[str]:
        if not (match := _ALL.fullmatch(value)):
            return [value]
        if match[1] not in copies:
            remedy = did_you_mean(match[1], copies, f"there are: {', '.join(copies)}", "'{{{}*}}'")
            raise ConfigError(f"{origin}: stage '{stage.name}' needs '{value}', which is of no stage", remedy)
        return [f"{{{name}}}" for name in copies[match[1]]]

    settings = {
        key: [word for item in value for word in (words(item) if isinstance(item, str) else [item])]
        if isinstance(value, list)
        else value
        for key, value in stage.settings.items()
    }
    command = tuple(word for part in stage.command for word in words(part))
    if left := _ALL.search(repr((command, settings))):
        raise ConfigError(
            f"{origin}: stage '{stage.name}' says {left[0]} within something else",
            "let it be a word of the command, or an item of a list, by itself",
        )
    return replace(stage, command=command, settings=settings)
