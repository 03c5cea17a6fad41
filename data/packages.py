"""What to say when an optional package is missing."""

from seedbed.errors import DataError


def package_missing(what: str, package: str, extra: str, otherwise: str = "") -> DataError:
    """The error of something that needs `package`, which `extra` of this distribution brings."""
    fix = f"pip install 'seedbed[{extra}]'"
    return DataError(f"{what} needs the {package} package", f"{fix}, or {otherwise}" if otherwise else fix)
