"""Recipes: configurations that ship with Seedbed, and how a configuration is put together.

Precedence: defaults, then the recipe file, then `--set section.field=value`.
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.families import CONFIGS, FAMILIES, kind_of
from seedbed.errors import ConfigError, nearest
from training.config import Config, section_models

Tables = dict[str, dict[str, Any]]


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(f.name[:-5] for f in resources.files(__name__).iterdir() if f.name.endswith(".toml"))


def read_recipe(name_or_path: str) -> Tables:
    """The tables of a shipped recipe or of a TOML file; `description` is taken out."""
    path = Path(name_or_path)
    shipped = resources.files(__name__) / f"{name_or_path}.toml"
    if path.suffix == ".toml" or "/" in name_or_path:
        if not path.is_file():
            raise ConfigError(f"no recipe file at {path}", f"shipped recipes: {', '.join(recipe_names())}")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", "save it as UTF-8 text") from None
    elif shipped.is_file():
        text = shipped.read_text(encoding="utf-8")
    else:
        guess = nearest(name_or_path, recipe_names())
        raise ConfigError(
            f"no recipe named '{name_or_path}'",
            (f"did you mean '{guess}'? " if guess else "")
            + f"shipped recipes: {', '.join(recipe_names())}; or give the path of a .toml file",
        )
    return parse_toml(text, name_or_path)


def parse_toml(text: str, origin: str) -> Tables:
    """Tables of a configuration file; raises ConfigError naming `origin` and the line."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}", "mend the line that it names") from None
    tables.pop("description", None)
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"{origin}: '{key}' stands outside a table",
                f"write it inside one of: {', '.join(_sections())}",
            )
    return tables


def description_of(name: str) -> str:
    """What a shipped recipe says of itself."""
    text = (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text).get("description", ""))


def parse_overrides(assignments: Sequence[str]) -> Tables:
    """`section.field=value` assignments as tables; a value is TOML, or else a plain string."""
    tables: Tables = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        section, dot, field = name.strip().partition(".")
        if not (equals and dot and section and field):
            raise ConfigError(
                f"--set {assignment} is not of the form section.field=value",
                "for example --set run.steps=200",
            )
        tables.setdefault(section, {})[field] = parse_toml_value(value.strip())
    return tables


def parse_toml_value(text: str) -> Any:
    """What TOML reads in `text`, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def merge(base: Tables, overrides: Tables) -> Tables:
    """`base` with the fields of `overrides` put over it."""
    merged = {section: dict(fields) for section, fields in base.items()}
    for section, fields in overrides.items():
        merged.setdefault(section, {}).update(fields)
    return merged


def make_config(tables: Tables, origin: str = "configuration") -> Config:
    """A valid configuration, or a ConfigError that names every wrong key, its value and the fix."""
    _refuse_unknown_keys(tables, origin)
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            # The kind of model that stands between the table and its field is ours, not the user's.
            name = ".".join(str(part) for part in problem["loc"] if part not in CONFIGS)
            message = problem["msg"].removeprefix("Value error, ")
            message = message.replace("a valid tuple", 'a list, such as \'["a", "b"]\'')
            given = f" (given: {problem['input']!r})" if name.count(".") == 1 else ""
            lines.append(f"{name}: {message}{given}" if name.count(".") else message)
        raise ConfigError(f"{origin}: " + "; ".join(lines), "correct these settings") from None


def _sections() -> list[str]:
    return list(Config.model_fields)


def _refuse_unknown_keys(tables: Tables, origin: str) -> None:
    model = tables.get("model", {})
    if kind_of(model) is None:
        family = model["family"]
        guess = nearest(str(family), list(FAMILIES))
        raise ConfigError(
            f"{origin}: there is no model.family = {family!r}",
            (f"did you mean '{guess}'? " if guess else "") + f"the families are: {', '.join(FAMILIES)}",
        )
    sections = section_models(model)
    all_keys = [f"{name}.{field}" for name, section in sections.items() for field in section.model_fields]
    for section, fields in tables.items():
        if section not in _sections() and not fields:
            guess = nearest(section, _sections())
            raise ConfigError(
                f"{origin}: unknown table [{section}]", f"did you mean [{guess}]?" if guess else ""
            )
        for field in fields:
            name = f"{section}.{field}"
            if name in all_keys:
                continue
            same_field = [key for key in all_keys if key.split(".")[1] == field]
            guess = same_field[0] if same_field else nearest(name, all_keys)
            raise ConfigError(
                f"{origin}: unknown key '{name}'",
                f"did you mean '{guess}'?" if guess else f"sections: {', '.join(_sections())}",
            )


def to_toml(config: Config) -> str:
    """The configuration as TOML, every field written out."""
    lines: list[str] = []
    for section, fields in config.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        lines += [f"{field} = {toml_value(value)}" for field, value in fields.items()]
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """`value` as TOML writes it on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    if isinstance(value, dict):
        entries = (f"{toml_value(str(key))} = {toml_value(entry)}" for key, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def load_config(recipe: str, assignments: Sequence[str] = ()) -> Config:
    """The configuration of `recipe` with `--set` assignments applied."""
    return make_config(merge(read_recipe(recipe), parse_overrides(assignments)), recipe)
