"""A stage with its inputs in hand: what it is called by content, and the command that it becomes."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.pipelines.stage import OUT, Stage, filled
from cluster.pipelines.store import Place
from seedbed.errors import ConfigError
from seedbed.files import digest_of
from training.config import Config, items, kind_of
from training.recipes import load_config, toml_value

KEY_DIGITS = 16
GOES_ON = (("train",), ("data", "build"))
"""Commands that go on from what they left half-written; what others left is removed first."""
ALWAYS = {"tracking.mlflow": False}
"""A pipeline mirrors its runs itself, below a run of its own."""


@dataclass(frozen=True)
class Input:
    """An artefact that a stage is made of."""

    path: Path
    digest: str
    key: str = ""
    """Of the stage that made it; empty for what was given."""


@dataclass(frozen=True)
class Work:
    """What one stage of one pipeline has to do."""

    stage: Stage
    key: str
    place: Place
    inputs: dict[str, Input]
    config: Config | None
    """Of a stage that trains."""

    @property
    def goes_on(self) -> bool:
        return any(self.stage.command[: len(words)] == words for words in GOES_ON)

    @property
    def num_devices(self) -> int:
        return self.config.engine.num_ranks if self.config else 1

    def paths(self) -> dict[str, str]:
        """`{name}` -> what stands for it in the command."""
        return {OUT: str(self.place.out), **{name: str(item.path) for name, item in self.inputs.items()}}


def work_of(stage: Stage, inputs: Mapping[str, Input], store: Path) -> Work:
    """Raises ConfigError, naming the stage, for a recipe or a setting that is none."""
    own = {name: inputs[name] for name in stage.inputs}
    digests = {OUT: "", **{name: item.digest for name, item in own.items()}}
    config = config_of(stage, digests)
    key = digest_of(_described(stage, config, digests))
    words = [word for word in stage.command[:2] if word.replace("-", "").isalnum()]
    place = Place(store / f"{'-'.join(words)}-{key[:KEY_DIGITS]}", stage.file)
    return Work(stage, key, place, own, config)


def config_of(stage: Stage, names: Mapping[str, str]) -> Config | None:
    """The configuration of a stage that trains, with `names` in place of its inputs."""
    if stage.command[0] != "train":
        return None
    try:
        if not stage.recipe or stage.recipe.startswith("-"):
            raise ConfigError("train has no recipe", "train RECIPE --run-dir {out}")
        return load_config(stage.recipe, _assignments(stage, names))
    except ConfigError as error:
        raise ConfigError(f"stage '{stage.name}': {error.message}", error.fix) from None


def _assignments(stage: Stage, names: Mapping[str, str]) -> list[str]:
    settings = filled(stage.settings, names.__getitem__)
    return [f"{name}={toml_value(value)}" for name, value in settings.items() if "." in name]


def _described(stage: Stage, config: Config | None, digests: Mapping[str, str]) -> dict[str, Any]:
    """All that the artefact depends on: inputs by content, and of a recipe what it resolves to.

    Where and on how many processes it is trained is no part of it.
    """
    words = filled(list(stage.command), digests.__getitem__)
    settings = filled(stage.settings, digests.__getitem__)
    described: dict[str, Any] = {"command": words, "settings": settings}
    reads_python = "stdlib" in words
    if config is not None:
        described["command"] = [words[0], *words[2:]]
        described["settings"] = {name: value for name, value in settings.items() if "." not in name}
        described["config"] = {
            name: value
            for name, value in items(config)
            if name.startswith("data.") or kind_of(*name.split(".", 1)) != "placement"
        }
        reads_python = config.data.source == "stdlib" and not (config.data.path or config.data.paths)
    if reads_python:
        described["python"] = platform.python_version()
    return described


def command_of(work: Work, more: Mapping[str, Any] | None = None) -> list[str]:
    """The words after `seedbed`; `more` are settings that are no part of what the artefact is."""
    stage, names = work.stage, work.paths()
    words = filled(list(stage.command), names.__getitem__)
    for name, value in filled(stage.settings, names.__getitem__).items():
        if "." not in name:
            words += _option(name, value)
    assignments = _assignments(stage, names)
    if work.config is not None:
        assignments += [f"{name}={toml_value(value)}" for name, value in {**ALWAYS, **(more or {})}.items()]
    for assignment in assignments:
        words += ["--set", assignment]
    return [*words, "--json"]


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    values = value if isinstance(value, list | tuple) else [value]
    return [word for item in values for word in (flag, str(item))]


def process_of(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) of a command of this very Seedbed, wherever it is called."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH", "")
    if home not in path.split(os.pathsep):
        path = os.pathsep.join([home, path]) if path else home
    return [sys.executable, "-P", "-m", "seedbed", *words], {**os.environ, "PYTHONPATH": path}
