"""The build of a dataset, from what was asked to a published folder."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from data.build.stages import Build
from data.build.survey import dependencies
from data.build.workers import InProcess, Workers
from data.build.workspace import clear, only_builder_of, publish
from data.config import DataConfig
from data.examples import build as examples
from data.shards import MANIFEST, VERSION, Dataset, read_manifest
from data.sources import Source, open_source
from data.tokenizers import load_tokenizer
from seedbed.errors import DataError
from seedbed.files import digest_of, write_json

# Which input a dataset was made of, times of files included: not part of what it is.
BUILT_FROM = "built_from.json"
# What says nothing of running text.
OF_EXAMPLES = ("format", "template")


def build_dataset(config: DataConfig, out: str | Path, workers: Workers | None = None) -> Path:
    """Build the dataset that `config` asks for as the directory `out`; returns `out`.

    An `out` that already is this very dataset is left as it is, and repaired where it is damaged.
    DataError when it is anything else, or when the source is missing, empty or damaged.
    """
    # Absolute, since workers may run in another folder.
    out = Path(out).expanduser().absolute()
    source = open_source(config)
    root = Path(config.source).expanduser().absolute()
    if root.is_dir() and out.is_relative_to(root):
        raise DataError(
            f"{out} is inside the source {root}, and would be read as text by the next build",
            "build into a folder outside of it",
        )
    if _is_current(out, config, source):
        clear(out)
        return out
    with only_builder_of(out) as folder:
        manifest = _write_dataset(config, source, folder, workers)
        if _refuse_other_content(out, config):
            if read_manifest(out)["digest"] != manifest["digest"]:
                shutil.rmtree(folder)
                raise DataError(
                    f"{out} holds a dataset of this configuration but of other content: the source, "
                    "or the version of a library, has changed since",
                    "build under another name, or delete the old dataset first",
                )
            if _is_whole(out):
                os.replace(folder / "dataset" / BUILT_FROM, out / BUILT_FROM)
                shutil.rmtree(folder)
                return out
            print(f"replacing {out}, which is damaged", file=sys.stderr)
            shutil.rmtree(out)
        publish(folder / "dataset", out)
        shutil.rmtree(folder)
    return out


def ensure_dataset(config: DataConfig, workers: Workers | None = None) -> str:
    """The dataset at `config.path`, or else the one built from `config.source`, in the cache.

    The cache is $SEEDBED_CACHE or ~/.cache/seedbed. A dataset is found there again as long as the
    configuration, the files of the source (names, sizes, times), and for the standard library the
    Python version, are the same. Processes that ask at once build once.
    """
    if config.path:
        return Dataset.open(config.path).location.root
    source = open_source(config)
    out = cache_dir() / f"{source.name}-{_cache_key(config, source)[:16]}"
    if _opens(out):
        return str(out)
    with only_builder_of(out) as folder:
        if _opens(out):
            return str(out)
        _write_dataset(config, source, folder, workers)
        if out.exists():
            print(f"replacing {out}, which is damaged", file=sys.stderr)
            shutil.rmtree(out)
        publish(folder / "dataset", out)
        shutil.rmtree(folder)
    return str(out)


def cache_dir() -> Path:
    """Where `ensure_dataset` keeps what it builds."""
    folder = Path(os.environ.get("SEEDBED_CACHE") or "~/.cache/seedbed")
    return folder.expanduser().absolute() / "datasets"


def _cache_key(config: DataConfig, source: Source) -> str:
    parts = _described(config) | {"source": source.identity(), "version": VERSION}
    # The rules of filters and the content of evaluation items, which the configuration only names.
    parts["survey"] = examples.dependencies(config) if config.holds_examples else dependencies(config)
    if config.tokenizer:
        parts["tokenizer"] = load_tokenizer(config.tokenizer).fingerprint
    return digest_of(parts)


def _described(config: DataConfig) -> dict[str, Any]:
    """The part of the configuration that a dataset depends on."""
    return config.model_dump(
        mode="json", exclude={"path", "paths"} if config.holds_examples else {"path", "paths", *OF_EXAMPLES}
    )


def _write_dataset(
    config: DataConfig, source: Source, folder: Path, workers: Workers | None
) -> dict[str, Any]:
    if config.holds_examples:
        manifest = examples.ExampleBuild(config, source, folder).run(_described(config))
    else:
        manifest = Build(config, source, folder, workers or InProcess()).run(_described(config))
    write_json(folder / "dataset" / BUILT_FROM, {"key": _cache_key(config, source)})
    return manifest


def _is_current(out: Path, config: DataConfig, source: Source) -> bool:
    """Whether `out` is whole and was built from this very input; DataError when it is something else."""
    if not _refuse_other_content(out, config):
        return False
    try:
        built_from = (out / BUILT_FROM).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return _cache_key(config, source) in built_from and _is_whole(out)


def _refuse_other_content(out: Path, config: DataConfig) -> bool:
    """Whether `out` holds a dataset of this configuration; DataError when it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST).is_file():
        raise DataError(f"{out} exists and is not a dataset", "build under another name")
    try:
        recorded, asked = read_manifest(out)["config"], _described(config)
    except DataError as error:
        raise DataError(
            error.message, f"delete {out} and build again, or build under another name"
        ) from error
    different = sorted(
        name for name in recorded.keys() | asked.keys() if recorded.get(name) != asked.get(name)
    )
    if different:
        raise DataError(
            f"{out} holds a dataset of another configuration (data.{', data.'.join(different)})",
            "build under another name, or delete the old dataset first",
        )
    return True


def _opens(out: Path) -> bool:
    try:
        Dataset.open(out)
    except DataError:
        return False
    return True


def _is_whole(out: Path) -> bool:
    try:
        Dataset.open(out, verify=True)
    except DataError:
        return False
    return True
