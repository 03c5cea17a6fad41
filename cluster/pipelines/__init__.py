"""Pipelines: stages that are commands of Seedbed, each making one artefact of those of others.

The files beside this one are pipelines that ship, found by their names.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from seedbed.errors import ConfigError, nearest


def shipped(package: str = __name__) -> dict[str, str]:
    """Name -> description of the TOML files that ship in a package."""
    found = (file for file in resources.files(package).iterdir() if file.name.endswith(".toml"))
    return {
        file.name[:-5]: str(tomllib.loads(file.read_text(encoding="utf-8")).get("description", ""))
        for file in sorted(found, key=lambda file: file.name)
    }


def read_tables(name_or_path: str, package: str = __name__, what: str = "pipeline") -> dict[str, Any]:
    """The content of a TOML file that ships in `package`, or lies at a path; ConfigError without one."""
    path = Path(name_or_path)
    if path.suffix == ".toml" or "/" in name_or_path:
        if not path.is_file():
            raise ConfigError(
                f"no {what} file at {path}", f"those that ship: {', '.join(shipped(package)) or 'none'}"
            )
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", "save it as UTF-8 text") from None
    elif (resources.files(package) / f"{name_or_path}.toml").is_file():
        text = (resources.files(package) / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        guess = nearest(name_or_path, shipped(package))
        raise ConfigError(
            f"no {what} named '{name_or_path}'",
            (f"did you mean '{guess}'? " if guess else "")
            + f"those that ship: {', '.join(shipped(package)) or 'none'}; or give the path of a .toml file",
        )
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name_or_path} is not valid TOML: {error}", "mend the line that it names"
        ) from None
