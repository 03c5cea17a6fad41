"""What a task file may say.

description = "..."
kind = "multiple-choice"        # or "rolling", or "generate"
[items]                         # of a local text, or of a file in a known format
[prompt]                        # templates: {name} stands for a field of the item
[few_shot]
[generation]                    # of "generate" alone
"""

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from seedbed.errors import ConfigError
from seedbed.settings import STRICT

Kind = Literal["multiple-choice", "rolling", "generate"]


class ItemsSection(BaseModel):
    """Where items come from."""

    model_config = STRICT

    build: str = ""
    """How items are made of local texts, such as "next-passage": see `evals.tasks.local`."""
    texts: Literal["holdout", "stdlib"] = "holdout"
    """Of which texts: the held-out ones of the run's dataset (or of --data), or this Python's library."""
    format: str = ""
    """In place of `build`, the format of `path`, such as "hellaswag": see `evals.tasks.formats`."""
    subset: str = ""
    """Which of a format's tasks, such as "rte" of "glue", or languages, such as "de-en" of "wmt"."""
    path: str = ""
    """A file; a relative path begins at the folder of the task file."""
    num: int = Field(0, ge=0)
    """At most so many items; 0 takes all there are (of `build`: 200)."""
    seed: int = 0
    """Draws which."""


class PromptSection(BaseModel):
    """What the model reads."""

    model_config = STRICT

    context: str = ""
    """Before the answer. {name} is a field of the item, {choices} its choices with letters."""
    answer: str = "{choice}"
    """What is scored, or shows the answer of an example: {choice} or {letter}; {answer} of "generate"."""
    instruction: str = ""
    """Before everything else."""
    per_byte: bool = False
    """Prefer the choice that is likeliest per byte, rather than as a whole."""


class FewShotSection(BaseModel):
    """Examples before the question, the same for all items, which they are none of."""

    model_config = STRICT

    num: int = Field(0, ge=0)
    """How many."""
    seed: int = 0
    """Draws which."""
    path: str = ""
    """A file of examples in the format of the items; else they are taken from the items."""
    between: str = "\n\n"
    """After each example."""


class GenerationSection(BaseModel):
    """What the model writes, and how that is judged."""

    model_config = STRICT

    until: list[str] = Field(default_factory=list)
    """Strings that end an answer."""
    max_tokens: int = Field(64, ge=1)
    samples: int = Field(1, ge=1)
    """Answers for each item; of several, the one given most often counts (self-consistency)."""
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    pattern: str = ""
    """A regular expression whose last match is the answer, its first group if it has one: for reasoning
    before an answer. Without, the text is the answer."""
    judged_by: Literal["text", "number", "unit-tests", "nothing"] = "text"
    """Equal to a reference but for white space, or as a number; tests pass in a sandbox; or not at all."""

    @model_validator(mode="after")
    def _check(self) -> "GenerationSection":
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("temperature is 0 and samples are several: they would all be the same")
        return self


class TaskDefinition(BaseModel):
    """A task."""

    model_config = STRICT

    description: str = ""
    kind: Kind
    items: ItemsSection
    prompt: PromptSection = Field(default_factory=PromptSection)
    few_shot: FewShotSection = Field(default_factory=FewShotSection)
    generation: GenerationSection = Field(default_factory=GenerationSection)
    name: str = ""
    """Of the file."""
    folder: str = ""
    """Of the file."""

    @model_validator(mode="after")
    def _check(self) -> "TaskDefinition":
        if bool(self.items.build) == bool(self.items.format):
            raise ValueError("items.build: name either how items are built, or their format")
        if self.items.format and not self.items.path:
            raise ValueError("items.path: a format needs the path of a file")
        if self.kind == "rolling" and self.few_shot.num:
            raise ValueError("few_shot.num: a text that is scored whole has no examples before it")
        return self

    def path(self, name: str) -> Path:
        """A path of the file, which begins at the file's folder."""
        return Path(self.folder) / name


def task_names() -> list[str]:
    """The tasks that ship with Seedbed."""
    return sorted(
        file.name[:-5] for file in resources.files(__package__).iterdir() if file.name.endswith(".toml")
    )


def is_task_file(name_or_path: str) -> bool:
    """Whether a path is meant, rather than the name of a shipped task."""
    return name_or_path.endswith(".toml") or "/" in name_or_path


def load_task(name_or_path: str) -> TaskDefinition:
    """A shipped task by name, or one's own by its path. ConfigError names file, line and field."""
    if not is_task_file(name_or_path):
        shipped = resources.files(__package__) / f"{name_or_path}.toml"
        return parse_task(shipped.read_text(encoding="utf-8"), f"{name_or_path}.toml", name_or_path, "")
    path = Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the task file {path} cannot be read: {error}", "check its path") from None
    return parse_task(text, str(path), path.stem, str(path.parent))


def parse_task(text: str, origin: str, name: str, folder: str) -> TaskDefinition:
    """A task file's content."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}", "mend the line that it names") from None
    try:
        return TaskDefinition.model_validate({**tables, "name": name, "folder": folder})
    except ValidationError as error:
        raise ConfigError(
            "; ".join(_said(problem, text, origin) for problem in error.errors()), "correct the task file"
        ) from None


def _said(problem: Any, text: str, origin: str) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    where = [str(part) for part in problem["loc"]]
    named = re.match(r"([a-z_]+\.[a-z_]+): ", message)
    if named:
        where, message = named[1].split("."), message[named.end() :]
    return f"{origin}:{line_of(text, where)}: {'.'.join(where) or 'the task'}: {message}"


def line_of(text: str, where: list[str]) -> int:
    """The line of a TOML file on which a field stands; its table's, where the field is missing; else 1."""
    table, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            table = header[1]
            found = number if where[:1] == [table] else found
        field = re.match(r"\s*([\w-]+)\s*=", line)
        if field and [*([table] if table else []), field[1]] == where[: 2 if table else 1]:
            return number
    return found
