"""The last stage of a part: its documents become token shards.

They are read again, as they were surveyed; or, where the survey could encode them, only chosen from.

    dataset/part-00012/     the shards of both splits, see `data.shards`
    done/00012.json         written after it: the key of all it depends on, and its rows of the tables
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from itertools import compress, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.build.decisions import HOLDOUT, TRAIN
from data.build.survey import EDITED, REJECTED, encode, filters_of
from data.build.surveyed import Survey
from data.build.workers import Result, Task
from data.config import DataConfig
from data.location import Location
from data.shard_writer import SplitWriter
from data.shards import SPLITS
from data.sources import Advance, Drop, Piece, read_piece
from data.split import Split, shard_table
from data.tokenizers import Tokenizer, load_tokenizer
from seedbed.errors import DataError
from seedbed.files import digest_of, fsync_dir, write_json

# Text that is encoded together: enough for the encoder to be at full speed, and little to hold.
BATCH_CHARACTERS = 2**22
BATCH_TOKENS = 2**20

Batch = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]
"""Documents: their numbers in the survey [n], ids with end-of-text ids, and where each ends in these [n]."""


class Kept(NamedTuple):
    """A document of a survey, read again. `number` is its place among those that the survey kept."""

    number: int
    text: str


def surveyed_documents(
    config: DataConfig, pieces: list[Piece], survey: Survey, advance: Advance
) -> Iterator[Kept]:
    """The documents that the survey of these pieces kept, in order; DataError when they have changed."""
    flags, digests = survey.flags, survey.digests
    place = number = 0
    source = ""
    for piece in pieces:
        for item in read_piece(piece, config, advance):
            if isinstance(item, Drop):
                continue
            source = item.source
            flag = int(flags[place]) if place < len(flags) else -1
            place += 1
            if flag == REJECTED:
                continue
            text = _edited(config, item.text) if flag == EDITED else item.text
            if flag < 0 or hashlib.sha256(text.encode()).digest() != digests[number].tobytes():
                raise _changed(source)
            yield Kept(number, text)
            number += 1
    if place != len(flags):
        raise _changed(source or pieces[0].relative)


def _edited(config: DataConfig, text: str) -> str:
    filters = filters_of(config)
    verdict = filters([text])[0] if filters else text
    return verdict if isinstance(verdict, str) else ""


def _changed(where: str) -> DataError:
    return DataError(
        f"{where} changed while the dataset was built", "build again when nothing writes to the source"
    )


def encode_part(task: Task, advance: Advance) -> Result:
    """Write the shards of a part as the folder `task["out"]`, whole or not at all, then `task["done"]`."""
    config = DataConfig.model_validate(task["config"])
    out = Path(task["out"])
    pieces = [Piece.from_json(row) for row in task["pieces"]]
    survey = Survey(Path(task["survey"]))
    tokenizer = load_tokenizer(task["tokenizer"], task["encoder"])
    fates = np.load(task["fates"], allow_pickle=False)
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    scratch.mkdir(parents=True)
    train, holdout = (
        SplitWriter(
            scratch,
            part=task["part"],
            split=name,
            vocab_size=tokenizer.vocab_size,
            shard_tokens=config.shard_tokens,
        )
        for name in SPLITS
    )
    if survey.is_encoded:
        batches = _surveyed_batches(survey, advance, sum(piece.size for piece in pieces))
    else:
        batches = _encoded_batches(surveyed_documents(config, pieces, survey, advance), fates, tokenizer)
    with train, holdout:
        provenances, num_bytes = enumerate(survey.provenances()), survey.num_bytes
        for numbers, tokens, ends in batches:
            # The numbers ascend: rows between them are passed over.
            found = [next(row for at, row in provenances if at == number) for number in numbers.tolist()]
            lengths = np.diff(ends, prepend=0)
            for writer, fate in ((train, TRAIN), (holdout, HOLDOUT)):
                chosen = fates[numbers] == fate
                if chosen.any():
                    chosen_rows = list(compress(found, chosen.tolist()))
                    wanted = tokens if chosen.all() else tokens[np.repeat(chosen, lengths)]
                    writer.write(chosen_rows, num_bytes[numbers[chosen]], wanted, np.cumsum(lengths[chosen]))
    fsync_dir(scratch)
    Path(task["done"]).unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    os.rename(scratch, out)
    rows = dict(zip(SPLITS, (train.rows, holdout.rows), strict=True))
    num_tokens = train.num_tokens + holdout.num_tokens
    result = {"part": task["part"], "key": task["key"], "rows": rows, "tokens": num_tokens}
    write_json(Path(task["done"]), result | {"digest": digest_of(result)})
    return result


def finished(done: Path, key: str, dataset: Path) -> Result | None:
    """What `encode_part` returned for its task of this `key`, if it finished and `dataset` still holds it."""
    try:
        result = json.loads(done.read_bytes())
        if result.pop("digest") != digest_of(result) or result["key"] != key:
            return None
        for name, rows in result["rows"].items():
            Split(Location(dataset), name, shard_table(rows), "uint16", 0).verify()
    except (OSError, ValueError, LookupError, AttributeError, DataError):
        return None
    return result


def _surveyed_batches(survey: Survey, advance: Advance, num_bytes: int) -> Iterator[Batch]:
    """The documents as the survey encoded them, about BATCH_TOKENS at once; tells `num_bytes` on the way."""
    tokens, ends = survey.tokens, survey.ends
    cuts = np.searchsorted(ends, np.arange(BATCH_TOKENS, ends[-1] if len(ends) else 0, BATCH_TOKENS))
    told = 0
    for low, high in pairwise([0, *np.unique(cuts).tolist(), len(ends)]):
        start, stop = (int(ends[place - 1]) if place else 0 for place in (low, high))
        if high > low:
            yield np.arange(low, high), tokens[start:stop], ends[low:high] - start
        advance(num_bytes * high // max(1, len(ends)) - told)
        told = num_bytes * high // max(1, len(ends))


def _encoded_batches(
    documents: Iterator[Kept], fates: NDArray[np.uint8], tokenizer: Tokenizer
) -> Iterator[Batch]:
    """The documents that are to be in the dataset, encoded in pieces of about BATCH_CHARACTERS."""
    batch: list[Kept] = []
    num_characters, first = 0, True
    for item in documents:
        if fates[item.number] in (TRAIN, HOLDOUT):
            batch.append(item)
            num_characters += len(item.text)
        if num_characters >= BATCH_CHARACTERS:
            yield _encoded(batch, tokenizer, first)
            batch, num_characters, first = [], 0, False
    if batch:
        yield _encoded(batch, tokenizer, first)


def _encoded(batch: list[Kept], tokenizer: Tokenizer, first: bool) -> Batch:
    tokens, ends = encode(tokenizer, [item.text for item in batch], check_first=first)
    return np.array([item.number for item in batch]), tokens, ends
