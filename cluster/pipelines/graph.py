"""A pipeline as a graph: what each stage runs, which artefacts it is made of, in what order.

    [inputs]
    texts = "my_folder"                                   # what is there already

    [stage.shards]
    command = "data build {texts} --out {out}"            # any command of Seedbed

    [stage.gpt]
    command = "train gpt-demo --run-dir {out}"
    set.data.path = "{shards}"                            # --set data.path=...
    set.run.steps = 200

`{name}` is the artefact of another stage, or an input; that is all that orders stages. `{out}` is where the
command writes, chosen for it; without it the artefact is the JSON document that the command prints. In `set`,
tables are sections of the configuration (`--set`), and plain values are options of the command. For several
pipelines in one see `variants`.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.pipelines.stage import OUT, Stage, names_in
from cluster.pipelines.variants import expanded
from seedbed.errors import ConfigError, did_you_mean
from training.recipes import parse_toml_value

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_WRITES = ("--out", "--run-dir")
"""Options by which commands are told where to write."""
_FIELDS = {"command": str, "set": dict, "file": str, "retries": int}


@dataclass(frozen=True)
class Pipeline:
    """Stages in an order in which each comes after those that it needs."""

    name: str
    description: str
    stages: dict[str, Stage]
    inputs: dict[str, Path]

    def dependents(self, name: str) -> list[str]:
        """The stages that `name` is an input of."""
        return [stage.name for stage in self.stages.values() if name in stage.inputs]


def parse(tables: Mapping[str, Any], name: str, assignments: Sequence[str] = ()) -> Pipeline:
    """The pipeline of a file's content, with `stage.key=value` assignments over it.

    Raises ConfigError for whatever cannot be a pipeline: unknown keys and names, cycles, places that are
    written twice.
    """
    if odd := sorted(tables.keys() - {"description", "inputs", "stage", "variant"}):
        raise ConfigError(
            f"{name}: unknown table or key '{odd[0]}'",
            "a pipeline has description, [inputs], [stage.NAME] and [variant.NAME]",
        )
    written, inputs = tables.get("stage", {}), tables.get("inputs", {})
    if not isinstance(written, dict) or not written:
        raise ConfigError(f"{name} has no stages", "write [stage.NAME] with a command")
    stages = {key: _stage(key, table, name) for key, table in written.items()}
    of_name, stages = expanded(stages, tables.get("variant", {}), name)
    for key in [*inputs, *stages]:
        if not _NAME.fullmatch(key) or key == OUT:
            raise ConfigError(
                f"{name}: '{key}' cannot be a stage's or an input's name",
                "lower-case letters, digits, - and _, and not 'out'",
            )
    if twice := sorted(inputs.keys() & stages.keys()):
        raise ConfigError(f"{name}: '{twice[0]}' is an input and a stage", "rename one of them")
    for assignment in assignments:
        _assign(stages, of_name, assignment, name)
    for stage in stages.values():
        check_names(stage, [*stages, *inputs], name)
    _check_places(stages, name)
    order = _ordered(stages, name)
    paths = {key: Path(str(path)).expanduser() for key, path in inputs.items()}
    return Pipeline(name, str(tables.get("description", "")), {key: stages[key] for key in order}, paths)


def _stage(key: str, table: Any, origin: str) -> Stage:
    if not isinstance(table, dict) or not isinstance(table.get("command"), str) or not table["command"]:
        raise ConfigError(
            f"{origin}: stage '{key}' has no command", 'command = "train gpt-demo --run-dir {out}"'
        )
    for name, value in table.items():
        if name not in _FIELDS:
            raise ConfigError(
                f"{origin}: stage '{key}' has no '{name}'",
                did_you_mean(name, _FIELDS, f"a stage has {', '.join(_FIELDS)}", "'{}'"),
            )
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise ConfigError(f"{origin}: {key}.{name} = {value!r} is no {_FIELDS[name].__name__}", "mend it")
    words = tuple(shlex.split(table["command"]))
    settings: dict[str, Any] = {}
    for section, value in table.get("set", {}).items():
        if isinstance(value, dict):
            settings |= {f"{section}.{field}": item for field, item in value.items()}
        else:
            settings[section] = value
    file = table.get("file", "out")
    if Path(file).name != file or not file:
        raise ConfigError(f"{origin}: {key}.file = {file!r} is no plain name", "such as rows.jsonl")
    return Stage(key, words, settings, file, int(table.get("retries", 1)))


def _assign(
    stages: dict[str, Stage], of_name: Mapping[str, Sequence[str]], assignment: str, origin: str
) -> None:
    """Put `stage.key=value` over the settings of a stage, or of all variants of one; `stage.section.field` is
    a setting of a recipe."""
    name, equals, value = assignment.partition("=")
    stage, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(
            f"--set {assignment} is not of the form stage.key=value", "for example --set gpt.run.steps=200"
        )
    known = [*dict.fromkeys([*of_name, *stages])]
    if stage not in known:
        raise ConfigError(
            f"--set {assignment}: {origin} has no stage '{stage}'",
            did_you_mean(stage, known, f"its stages are: {', '.join(known)}", "'{}'"),
        )
    for copy in of_name.get(stage, [stage]):
        settings = {**stages[copy].settings, key: parse_toml_value(value.strip())}
        stages[copy] = replace(stages[copy], settings=settings)


def check_names(stage: Stage, known: list[str], origin: str) -> None:
    """Raises ConfigError when a stage is made of something that is not known."""
    for name in stage.inputs:
        if name not in known:
            raise ConfigError(
                f"{origin}: stage '{stage.name}' needs '{{{name}}}', which is neither a stage nor an input",
                did_you_mean(name, known, f"there are: {', '.join(known)}", "'{{{}}}'"),
            )


def _check_places(stages: dict[str, Stage], origin: str) -> None:
    """Stages write to `{out}` alone, and no two of them are the same work."""
    written: dict[str, str] = {}
    for stage in stages.values():
        for option, place in zip(stage.command, stage.command[1:], strict=False):
            if option not in _WRITES or OUT in names_in(place):
                continue
            if place in written:
                raise ConfigError(
                    f"{origin}: the stages '{written[place]}' and '{stage.name}' both write {place}",
                    f"say {option} {{out}} in both: each has a place of its own",
                )
            written[place] = stage.name
    for place, name in written.items():
        raise ConfigError(
            f"{origin}: stage '{name}' writes {place} by itself",
            "say {out}: its artefact is kept by its content",
        )
    seen: dict[str, str] = {}
    for stage in stages.values():
        work = repr((stage.command, sorted(stage.settings.items())))
        if work in seen:
            raise ConfigError(
                f"{origin}: the stages '{seen[work]}' and '{stage.name}' do the same, and would write one "
                "place",
                f"leave one of them out, and say {{{seen[work]}}} for both",
            )
        seen[work] = stage.name


def _ordered(stages: dict[str, Stage], origin: str) -> list[str]:
    """Names, inputs first, else as they are written; ConfigError naming a cycle."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in stages:
            return
        if name in path:
            cycle = " -> ".join([*path[path.index(name) :], name])
            raise ConfigError(
                f"{origin}: a cycle: {cycle} (each is made of the next)", "take one of these inputs out"
            )
        path.append(name)
        for needed in stages[name].inputs:
            visit(needed)
        path.pop()
        order.append(name)

    for name in stages:
        visit(name)
    return order
