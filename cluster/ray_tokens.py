"""Tokens of Ray clusters: every cluster has one, it lies in a file that only its owner reads.

What is passed on, printed or written down is the path of that file, never what is in it.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from seedbed.errors import UsageError

MODE, PATH, VALUE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"
"""The variables that Ray reads."""


def home() -> Path:
    """Where this user's clusters are written down: $SEEDBED_HOME, or ~/.seedbed."""
    return Path(os.environ.get("SEEDBED_HOME") or Path.home() / ".seedbed")


def token_path() -> Path:
    """The file of the token that this user's clusters are started with."""
    return Path(os.environ.get(PATH) or home() / "ray-token")


def make_token() -> Path:
    """The token file, made when it is missing. Raises UsageError when others can read it."""
    path = token_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        check_private(path)
        return path
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


def check_private(path: Path) -> None:
    """Raises UsageError unless the owner alone can read the token file."""
    if exposed := exposure(path):
        raise UsageError(
            f"the cluster's token file {path} {exposed}", f"chmod 600 {path}; and change the token"
        )


def exposure(path: Path) -> str:
    """Who beside the owner can read or write `path`, in words; empty when nobody can."""
    mode = path.stat().st_mode
    others = mode & (stat.S_IRWXG | stat.S_IRWXO)
    return f"is open to others (mode {stat.S_IMODE(mode):o})" if others else ""


def authenticated(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Ray is to read so that it asks for the token, and shows it.

    Raises UsageError when there is none: nothing is ever started or reached without one.
    """
    if environment.get(MODE, "token").lower() != "token":
        raise UsageError(
            f"{MODE}={environment[MODE]}: Seedbed uses no cluster without authentication", f"unset {MODE}"
        )
    if environment.get(VALUE):
        return {MODE: "token"}
    own, theirs = token_path(), Path.home() / ".ray" / "auth_token"
    path = next((path for path in (own, theirs) if path.is_file()), None)
    if path is None:
        raise UsageError(
            f"there is no token for the cluster at {own}",
            f"copy the token file of the cluster there (chmod 600), or set {PATH} to where it is; "
            "`seedbed cluster up` makes one with a cluster on this machine",
        )
    check_private(path)
    return {MODE: "token", PATH: str(path)}
