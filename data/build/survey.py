"""The first stage: what is in a part. Quality filters, hashes and MinHash signatures of its documents.

    survey/00012-<key>/survey.json      counts, and how many rows of each file were malformed
                       flags.bin        uint8 of each document read: REJECTED, KEPT or EDITED
                       digests.bin      32 bytes of each document kept: SHA-256 of the text
                       num_bytes.bin    int64 of each: UTF-8 bytes
                       id_hashes.bin    uint64 of each: the first bytes of the id's BLAKE2b
                       signatures.bin   112 uint32 of each, when near-copies matter
                       documents.jsonl  id, SHA-256 and source of each
                       drops.jsonl      what was not taken, or taken changed
                       tokens.bin       the ids of all documents kept, if the tokenizer is there already
                       ends.bin         int64 of each: where it ends in these

A part is read document by document; of a document only these stay.
"""

import hashlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data.build.surveyed import is_sound
from data.build.workers import Result, Task
from data.config import DataConfig
from data.decontamination import Decontaminator
from data.filters import Rejected, TextFilters
from data.minhash import MinHasher
from data.shard_writer import provenance_row, token_dtype
from data.sources import Advance, Document, Drop, Piece, Tally, read_piece
from data.tokenizers import Tokenizer, load_tokenizer
from seedbed.errors import DataError
from seedbed.files import HashingWriter, canonical_json, digest_of, fsync_dir, write_json

# The label_field that means the first folder of a file.
FOLDER = "folder"
REJECTED, KEPT, EDITED = 0, 1, 2

# Texts that are looked at together: enough for array code, and little to hold.
BATCH_CHARACTERS = 2**22

VERSION = 1

_SURVEYED = (
    "text_field",
    "id_field",
    "label_field",
    "on_undecodable",
    "max_document_bytes",
    "filters",
    "filter_options",
    "decontaminate_words",
)


def needs_signatures(config: DataConfig) -> bool:
    """Whether near-copies matter, for dropping them or for the held-out split."""
    return config.drop_near_duplicates or bool(config.near_duplicate_threshold and config.holdout_fraction)


def dependencies(config: DataConfig) -> dict[str, Any]:
    """All but the text that the survey of a part depends on."""
    asked = config.model_dump(mode="json", include=set(_SURVEYED))
    index = decontaminator_of(config)
    filters = filters_of(config)
    return asked | {
        "rules": filters.describe() if filters else {},
        "signatures": needs_signatures(config),
        "decontaminate": index.digest if index else "",
        "version": VERSION,
    }


def survey_part(task: Task, advance: Advance) -> Result:
    """Survey `task["pieces"]` into the directory `task["out"]`, whole or not at all."""
    config = DataConfig.model_validate(task["config"])
    out = Path(task["out"])
    tokenizer = load_tokenizer(task["tokenizer"], task["encoder"]) if "tokenizer" in task else None
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    scratch.mkdir(parents=True)
    with _Survey(config, tokenizer, scratch) as surveyed:
        for piece in (Piece.from_json(row) for row in task["pieces"]):
            surveyed.read(piece, advance)
        surveyed.look()
    surveyed.finish()
    fsync_dir(scratch)
    try:
        os.rename(scratch, out)
    except OSError:
        # The same task, run again by whoever did not hear that it was done.
        if not is_sound(out):
            raise
        shutil.rmtree(scratch)
    return {"tokens": surveyed.num_tokens}


@lru_cache(maxsize=1)
def _decontaminator(files: tuple[str, ...], num_words: int, modified: tuple[int, ...]) -> Decontaminator:
    return Decontaminator(files, num_words)


def decontaminator_of(config: DataConfig) -> Decontaminator | None:
    """The index of the evaluation items of `config`, made once per process."""
    files = config.decontaminate
    modified = (Path(file).stat().st_mtime_ns if Path(file).exists() else 0 for file in files)
    return _decontaminator(files, config.decontaminate_words, tuple(modified)) if files else None


@lru_cache(maxsize=1)
def _filters(names: tuple[str, ...], options: tuple[tuple[str, float | bool], ...]) -> TextFilters:
    return TextFilters(names, dict(options))


def filters_of(config: DataConfig) -> TextFilters | None:
    """The quality filters of `config`, made once per process."""
    if not (config.filters or config.filter_options):
        return None
    return _filters(config.filters, tuple(sorted(config.filter_options.items())))


class _Survey:
    """What is known of the documents of a part, written as it becomes known: nothing of it is held."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer | None, folder: Path) -> None:
        self.config, self.tokenizer, self._folder = config, tokenizer, folder
        self._filters = filters_of(config)
        self._evaluations = decontaminator_of(config)
        self._hasher = MinHasher() if needs_signatures(config) else None
        self._open = ExitStack()
        self._files: dict[str, HashingWriter] = {}
        self._reasons: Counter[str] = Counter()
        self._tallies: dict[str, Any] = {}
        self._num_replaced = self.num_tokens = 0
        self._waiting: list[Document] = []
        self._num_waiting_characters = 0

    def __enter__(self) -> Self:
        names = [f"{name}.bin" for name in ("flags", "digests", "num_bytes", "id_hashes")]
        names += ["signatures.bin"] if self._hasher else []
        names += ["tokens.bin", "ends.bin"] if self.tokenizer else []
        for name in [*names, "documents.jsonl", "drops.jsonl"]:
            writer = HashingWriter(self._folder / name, durable=False)
            self._files[name] = self._open.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _write(self, column: str, values: NDArray[Any]) -> None:
        self._files[f"{column}.bin"].write(np.ascontiguousarray(values).data)

    def read(self, piece: Piece, advance: Advance) -> None:
        tally = Tally()
        for item in read_piece(piece, self.config, advance, tally):
            if isinstance(item, Drop):
                self._drop(item)
                continue
            self._waiting.append(item)
            self._num_waiting_characters += len(item.text)
            if self._num_waiting_characters >= BATCH_CHARACTERS:
                self.look()
        self._tallies[piece.relative] = tally.merged(self._tallies.get(piece.relative)).as_json()

    def look(self) -> None:
        """Decide about the documents that were read since."""
        kept = list(self._passing(self._waiting))
        self._waiting, self._num_waiting_characters = [], 0
        if not kept:
            return
        texts = [text for _, text in kept]
        utf8 = [text.encode() for text in texts]
        digests = [hashlib.sha256(text) for text in utf8]
        ids = [hashlib.blake2b(document.id.encode(), digest_size=8).digest() for document, _ in kept]
        self._files["digests.bin"].write(b"".join(digest.digest() for digest in digests))
        self._write("num_bytes", np.fromiter(map(len, utf8), dtype="<i8", count=len(utf8)))
        self._files["id_hashes.bin"].write(b"".join(ids))
        rows = (
            provenance_row(
                document.id, document.source, digest.hexdigest(), label_of(document, self.config.label_field)
            )
            + b"\n"
            for (document, _), digest in zip(kept, digests, strict=True)
        )
        self._files["documents.jsonl"].write(b"".join(rows))
        for document, _ in kept:
            if document.replaced:
                self._num_replaced += 1
                # Not a drop, but listed beside them: the text is no longer quite what was in the file.
                self._list(document, "replaced", "kept, with U+FFFD for what is not UTF-8 text")
        if self._hasher is not None:
            self._write("signatures", self._hasher.signatures(texts))
        if self.tokenizer is not None:
            tokens, ends = encode(self.tokenizer, texts, check_first=not self.num_tokens)
            self._write("tokens", tokens)
            self._write("ends", ends + self.num_tokens)
            self.num_tokens += len(tokens)

    def _passing(self, documents: list[Document]) -> Iterator[tuple[Document, str]]:
        """The documents that the filters let through, with their text as it is from then on."""
        texts = [document.text for document in documents]
        verdicts: list[str | Rejected] = self._filters(texts) if self._filters else [*texts]
        if self._evaluations:
            verdicts = _without(verdicts, self._evaluations)
        flags = np.full(len(documents), KEPT, dtype=np.uint8)
        for number, (document, verdict) in enumerate(zip(documents, verdicts, strict=True)):
            if isinstance(verdict, Rejected):
                flags[number] = REJECTED
                self._drop(Drop(document.id, document.source, verdict.reason, verdict.detail))
            else:
                flags[number] = EDITED if verdict != document.text else KEPT
                yield document, verdict
        self._write("flags", flags)

    def _drop(self, drop: Drop) -> None:
        self._reasons[drop.reason] += 1
        self._list(drop, drop.reason, drop.detail)

    def _list(self, item: Document | Drop, reason: str, detail: str) -> None:
        row = {"id": item.id, "source": item.source, "reason": reason, "detail": detail}
        self._files["drops.jsonl"].write(canonical_json(row) + b"\n")

    def finish(self) -> None:
        """Write `survey.json`, once all other files are closed."""
        content = {
            "reasons": dict(self._reasons),
            "replaced": self._num_replaced,
            "tallies": self._tallies,
            "token_dtype": token_dtype(self.tokenizer.vocab_size) if self.tokenizer else "",
            "files": {name: file.receipt() for name, file in self._files.items()},
        }
        write_json(self._folder / "survey.json", content | {"digest": digest_of(content)}, durable=False)


def label_of(document: Document, field: str) -> str | None:
    """The label of a document, None where it has none; DataError for what is no label."""
    value = document.meta.get(field)
    if field == FOLDER and value is None:
        folders = PurePosixPath(document.id).parts[:-1]
        return folders[0] if folders else None
    if value is None or isinstance(value, str | int):
        return None if value in (None, "") else str(value)
    raise DataError(
        f"{document.source}: field {field!r} holds a {type(value).__name__}, not a label",
        "give labels as strings or whole numbers, or set another data.label_field",
    )


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], *, check_first: bool
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids of n `texts`, an end-of-text id after each, in the type of token files; [n]: the ends."""
    ids, ends = tokenizer.encode_flat(texts, check_first=check_first)
    ends = ends + np.arange(1, len(ends) + 1)
    tokens = np.empty(len(ids) + len(ends), dtype=token_dtype(tokenizer.vocab_size))
    inside = np.ones(len(tokens), dtype=np.bool_)
    inside[ends - 1] = False
    tokens[inside] = ids
    tokens[ends - 1] = tokenizer.end_of_text_id
    return tokens, ends


def _without(verdicts: list[str | Rejected], evaluations: Decontaminator) -> list[str | Rejected]:
    """`verdicts` with the texts rejected that share an n-gram with an evaluation item."""
    passing = [number for number, verdict in enumerate(verdicts) if isinstance(verdict, str)]
    found = evaluations.find([str(verdicts[number]) for number in passing])
    for number, item in zip(passing, found, strict=True):
        if item is not None:
            verdicts[number] = Rejected("contaminated", f"shares words with the evaluation item {item}")
    return verdicts
