"""The first stage: what is in a part. Quality filters, hashes and MinHash signatures of its documents.

    survey/00012-<key>/survey.json      counts, and how many rows of each file were malformed
                       flags.npy        [read] uint8: REJECTED, KEPT or EDITED, for each document read
                       digests.npy      [kept, 32] uint8: SHA-256 of the text
                       num_bytes.npy    [kept] int64: UTF-8 bytes
                       id_hashes.npy    [kept] uint64: the first bytes of the id's BLAKE2b
                       signatures.npy   [kept, 112] uint32, when near-copies matter
                       documents.jsonl  id, SHA-256 and source of each document kept
                       drops.jsonl      what was not taken, or taken changed
                       tokens.npy       the ids of all documents kept, if the tokenizer is there already
                       ends.npy         [kept] int64: where each document ends in these

A part is read document by document; of a document only these stay.
"""

import hashlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.build.surveyed import is_sound
from data.build.workers import Result, Task
from data.config import DataConfig
from data.decontamination import Decontaminator
from data.filters import Rejected, TextFilters
from data.minhash import NUM_PERMUTATIONS, MinHasher
from data.shard_writer import provenance_row, token_dtype
from data.sources import Advance, Document, Drop, Piece, Tally, read_piece
from data.tokenizers import Tokenizer, load_tokenizer
from seedbed.files import HashingWriter, canonical_json, digest_of, fsync_dir, write_json

REJECTED, KEPT, EDITED = 0, 1, 2

# Texts that are looked at together: enough for array code, and little to hold.
BATCH_CHARACTERS = 2**22

VERSION = 1

_SURVEYED = (
    "text_field",
    "id_field",
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
    surveyed = _Survey(config, tokenizer)
    for piece in (Piece.from_json(row) for row in task["pieces"]):
        surveyed.read(piece, advance)
    surveyed.look()
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    scratch.mkdir(parents=True)
    surveyed.write(scratch)
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


@dataclass
class _Survey:
    config: DataConfig
    tokenizer: Tokenizer | None
    flags: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    id_hashes: list[bytes] = field(default_factory=list)
    provenances: list[bytes] = field(default_factory=list)
    drops: list[bytes] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, Any] = field(default_factory=dict)
    num_replaced: int = 0

    def __post_init__(self) -> None:
        self._filters = filters_of(self.config)
        self._evaluations = decontaminator_of(self.config)
        self._hasher = MinHasher() if needs_signatures(self.config) else None
        self._signatures: list[NDArray[np.uint32]] = []
        self._tokens: list[NDArray[Any]] = []
        self._ends: list[NDArray[np.int64]] = []
        self.num_tokens = 0
        self._waiting: list[Document] = []
        self._num_waiting_characters = 0

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
        self.tallies[piece.relative] = tally.merged(self.tallies.get(piece.relative)).as_json()

    def look(self) -> None:
        """Decide about the documents that were read since."""
        kept = list(self._passing(self._waiting))
        for document, text in kept:
            utf8 = text.encode()
            digest = hashlib.sha256(utf8)
            self.digests.append(digest.digest())
            self.num_bytes.append(len(utf8))
            self.id_hashes.append(hashlib.blake2b(document.id.encode(), digest_size=8).digest())
            self.provenances.append(provenance_row(document.id, document.source, digest.hexdigest()))
            if document.replaced:
                self.num_replaced += 1
                # Not a drop, but listed beside them: the text is no longer quite what was in the file.
                self._list(document, "replaced", "kept, with U+FFFD for what is not UTF-8 text")
        texts = [text for _, text in kept]
        if self._hasher is not None and texts:
            self._signatures.append(self._hasher.signatures(texts))
        if self.tokenizer is not None and texts:
            tokens, ends = encode(self.tokenizer, texts, check_first=not self._tokens)
            self._ends.append(ends + self.num_tokens)
            self._tokens.append(tokens)
            self.num_tokens += len(tokens)
        self._waiting, self._num_waiting_characters = [], 0

    def _passing(self, documents: list[Document]) -> Iterator[tuple[Document, str]]:
        """The documents that the filters let through, with their text as it is from then on."""
        texts = [document.text for document in documents]
        verdicts: list[str | Rejected] = self._filters(texts) if self._filters else [*texts]
        if self._evaluations:
            verdicts = _without(verdicts, self._evaluations)
        for document, verdict in zip(documents, verdicts, strict=True):
            if isinstance(verdict, Rejected):
                self.flags.append(REJECTED)
                self._drop(Drop(document.id, document.source, verdict.reason, verdict.detail))
            else:
                edited = verdict != document.text
                self.flags.append(EDITED if edited else KEPT)
                yield document, verdict

    def _drop(self, drop: Drop) -> None:
        self.reasons[drop.reason] += 1
        self._list(drop, drop.reason, drop.detail)

    def _list(self, item: Document | Drop, reason: str, detail: str) -> None:
        row = {"id": item.id, "source": item.source, "reason": reason, "detail": detail}
        self.drops.append(canonical_json(row))

    def write(self, folder: Path) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "flags": np.array(self.flags, dtype=np.uint8),
            "digests": np.frombuffer(b"".join(self.digests), dtype=np.uint8).reshape(-1, 32),
            "num_bytes": np.array(self.num_bytes, dtype=np.int64),
            "id_hashes": np.frombuffer(b"".join(self.id_hashes), dtype="<u8"),
        }
        if self._hasher is not None:
            empty = np.empty((0, NUM_PERMUTATIONS), dtype=np.uint32)
            arrays["signatures"] = np.concatenate([empty, *self._signatures])
        if self.tokenizer is not None:
            dtype = token_dtype(self.tokenizer.vocab_size)
            arrays["tokens"] = np.concatenate([np.empty(0, dtype=dtype), *self._tokens])
            arrays["ends"] = np.concatenate([np.empty(0, dtype=np.int64), *self._ends])
        receipts = {}
        for name, array in arrays.items():
            with HashingWriter(folder / f"{name}.npy", durable=False) as file:
                np.lib.format.write_array(file, array)
            receipts[f"{name}.npy"] = file.receipt()
        for name, rows in (("documents.jsonl", self.provenances), ("drops.jsonl", self.drops)):
            with HashingWriter(folder / name, durable=False) as file:
                file.write(b"".join(row + b"\n" for row in rows))
            receipts[name] = file.receipt()
        content = {
            "reasons": dict(self.reasons),
            "replaced": self.num_replaced,
            "tallies": self.tallies,
            "files": receipts,
        }
        write_json(folder / "survey.json", content | {"digest": digest_of(content)}, durable=False)


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
