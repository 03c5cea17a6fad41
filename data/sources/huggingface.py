"""Hugging Face datasets: a folder that `datasets` saved, or whatever `load_dataset` understands, streamed.

A saved folder is cut into ranges of rows. Anything else, a folder of data files or a name on the Hub
(with "@REVISION", where one is wanted), is read shard by shard without being copied to the disk.
No code of a dataset is ever run: the extra asks for a release of `datasets` that cannot.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.packages import package_missing
from data.sources.documents import Advance, Document, Drop
from data.sources.listing import list_folder
from data.sources.pieces import Piece, Tally, check_malformed, even_ranges, group_pieces
from data.sources.tables import batch_rows, read_tables, wanted_columns
from data.storage import STORAGE_PACKAGES, came_from
from seedbed.errors import DataError
from seedbed.files import digest_of

PREFIX = "hf:"
ROWS, SHARD = "hf-rows", "hf-shard"

STREAM_BATCH_ROWS = 256

_PACKAGES = STORAGE_PACKAGES | {"datasets", "pyarrow"}


def is_hugging_face(source: str) -> bool:
    """Whether `data.source` names such a dataset. (hf://... is an fsspec URL of single files.)"""
    return source.startswith(PREFIX) and not source.startswith(PREFIX + "//")


@dataclass
class HuggingFaceSource:
    """One split of one dataset."""

    name: str
    config: DataConfig
    path: str
    """The name on the Hub, or the local folder."""
    total_bytes: int
    version: str
    """What the files of the split are, and of which revision, as a hash."""
    count: int
    """Rows of a saved dataset; shards of any other."""
    is_saved: bool
    drops: list[Drop] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "huggingface",
            "asked": self.config.source,
            "config": self.config.hf_config,
            "split": self.config.hf_split,
        }

    def identity(self) -> dict[str, Any]:
        return self.describe() | {"asked": self.path, "version": self.version}

    def parts(self, part_bytes: int) -> list[list[Piece]]:
        num_pieces = self.count if not self.is_saved else max(1, -(-self.total_bytes // part_bytes))
        return group_pieces(self._pieces(num_pieces), part_bytes)

    def documents(self, advance: Advance) -> Iterator[Document | Drop]:
        read = read_rows if self.is_saved else read_shard
        for piece in self._pieces(1 if self.is_saved else self.count):
            tally = Tally()
            yield from read(piece, self.config, advance, tally)
            check_malformed([{piece.relative: tally.as_json()}], self.config)

    def _pieces(self, num_pieces: int) -> Iterator[Piece]:
        sizes = even_ranges(self.total_bytes, num_pieces)
        for (start, stop), (first, last) in zip(even_ranges(self.count, num_pieces), sizes, strict=True):
            yield Piece(
                kind=ROWS if self.is_saved else SHARD,
                relative=self.name if self.is_saved else f"{self.name}/{start:05}",
                path=self.path,
                size=last - first,
                start=start,
                stop=stop,
                file_bytes=self.total_bytes,
                version=self.version,
                first_line=start if self.is_saved else 0,
            )


def open_hugging_face(config: DataConfig) -> HuggingFaceSource:
    """The source of `config.source`, which starts with "hf:"."""
    asked = config.source.removeprefix(PREFIX)
    if not asked:
        raise DataError(f"data.source = {config.source!r} names no dataset", "write hf:NAME or hf:FOLDER")
    folder = Path(asked).expanduser()
    path = str(folder.resolve()) if folder.is_dir() else asked
    name = path.rstrip("/").rpartition("/")[2].partition("@")[0] or "dataset"
    with _hub_errors(path, config):
        if _is_saved(path):
            rows = _saved(path, config)
            version = _folder_version(path)
            return HuggingFaceSource(name, config, path, rows.data.nbytes, version, len(rows), True)
        builder = _builder(path, config)
        stream = _stream(builder, config)
        about = (builder.info.splits or {}).get(config.hf_split)
        num_bytes = (about.num_bytes if about else 0) or _local_bytes(builder, config)
        version = _version(builder, config)
        return HuggingFaceSource(name, config, path, num_bytes, version, stream.num_shards, False)


def read_rows(piece: Piece, config: DataConfig, advance: Advance, tally: Tally) -> Iterator[Document | Drop]:
    """A document per row of a range of a saved dataset."""
    with _hub_errors(piece.path, config):
        if _folder_version(piece.path) != piece.version:
            raise _changed(piece)
        rows = _saved(piece.path, config)
        columns = wanted_columns(piece, rows.column_names, config)
        size = batch_rows(rows.data.nbytes, len(rows))
        rows = rows.select_columns(columns).select(range(piece.start, piece.stop)).with_format("arrow")
        yield from read_tables(rows.iter(size), piece, len(rows), config, advance, tally)


def read_shard(piece: Piece, config: DataConfig, advance: Advance, tally: Tally) -> Iterator[Document | Drop]:
    """A document per row of one shard of a streamed dataset."""
    with _hub_errors(piece.path, config):
        builder = _builder(piece.path, config)
        if _version(builder, config) != piece.version:
            raise _changed(piece)
        stream = _stream(builder, config)
        if stream.column_names:
            stream = stream.select_columns(wanted_columns(piece, stream.column_names, config))
        stream = stream.shard(num_shards=stream.num_shards, index=piece.start).with_format("arrow")
        tables = _with_text(stream.iter(STREAM_BATCH_ROWS), piece, config)
        yield from read_tables(tables, piece, 0, config, advance, tally)


def _with_text(tables: Iterator[Any], piece: Piece, config: DataConfig) -> Iterator[Any]:
    """The same tables, looked at: the columns of JSON files are known once they are read."""
    for table in tables:
        wanted_columns(piece, table.column_names, config)
        yield table


def _is_saved(path: str) -> bool:
    return any(Path(path, name).is_file() for name in ("dataset_dict.json", "state.json"))


def _saved(path: str, config: DataConfig) -> Any:
    """The split of a dataset that was saved to a folder, mapped into memory."""
    saved = _datasets(path).load_from_disk(path)
    if isinstance(saved, dict):
        if config.hf_split not in saved:
            raise _no_split(path, config, ", ".join(saved))
        return saved[config.hf_split]
    if saved.split is not None and str(saved.split) != config.hf_split:
        raise _no_split(path, config, str(saved.split))
    return saved


def _builder(path: str, config: DataConfig) -> Any:
    name, _, revision = (path, "", "") if Path(path).is_dir() else path.partition("@")
    load = _datasets(path).load_dataset_builder
    return load(name, config.hf_config or None, revision=revision or None)


def _stream(builder: Any, config: DataConfig) -> Any:
    return builder.as_streaming_dataset(split=config.hf_split)


def _data_files(builder: Any, config: DataConfig) -> Any:
    return (builder.config.data_files or {}).get(config.hf_split, [])


def _local_bytes(builder: Any, config: DataConfig) -> int:
    files = [Path(file) for file in _data_files(builder, config)]
    return sum(file.stat().st_size for file in files if file.is_file())


def _version(builder: Any, config: DataConfig) -> str:
    files = _data_files(builder, config)
    origins = [list(origin) for origin in getattr(files, "origin_metadata", [])]
    return digest_of([list(files), origins] if files else builder.hash)


def _folder_version(path: str) -> str:
    entries = list_folder(Path(path), "*").entries
    return digest_of([(entry.relative, entry.size, entry.mtime_ns) for entry in entries])


def _datasets(path: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise package_missing(f"reading {PREFIX}{path}", "datasets", "huggingface") from error
    datasets.disable_progress_bars()
    return datasets


@contextmanager
def _hub_errors(path: str, config: DataConfig) -> Iterator[None]:
    """Whatever `datasets` raises becomes a DataError that says what was tried."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DataError) or not came_from(error, _PACKAGES):
            raise
        tried = "" if Path(path).is_dir() else "; it is no local folder, so it was looked for on the Hub"
        raise DataError(
            f"cannot read {config.source} (data.hf_config = {config.hf_config!r}, data.hf_split = "
            f"{config.hf_split!r}): {type(error).__name__}: {error}{tried}",
            "check the name, data.hf_config and data.hf_split; for the Hub, the network, HF_HUB_OFFLINE and "
            "HF_TOKEN",
        ) from error


def _no_split(path: str, config: DataConfig, known: str) -> DataError:
    return DataError(
        f"{path} has no split {config.hf_split!r} but {known or 'none'}", "set data.hf_split to one of these"
    )


def _changed(piece: Piece) -> DataError:
    return DataError(
        f"{piece.path} changed while the dataset was built", "build again when nothing writes to the source"
    )
