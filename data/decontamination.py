"""Which texts hold a piece of an evaluation: n-grams of words that they share with its items.

The rule, after GPT-3 (Brown et al. 2020, "Language models are few-shot learners", appendix C): an item is
cut into all its runs of 13 words, case, spaces and punctuation aside, and a text that holds one of them
is contaminated. An item of 8 to 12 words counts as a whole. Shorter ones would be met by accident; they
are counted and not looked for. Words are those of `data.shingles`: in scripts without spaces, characters.

Shapes: W words of several texts, G n-grams of one size.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.shingles import Words, hash_ngrams, hash_words, in_groups, ngram_starts, split_words
from seedbed.errors import DataError

MIN_ITEM_WORDS = 8

_JSONL = (".jsonl", ".ndjson")
_NEITHER = (".json", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst", ".zip")


class Item(NamedTuple):
    """A text of an evaluation; its name is "file" or "file:line"."""

    name: str
    text: str


class Decontaminator:
    """Knows the n-grams of evaluation items, and finds them in texts."""

    def __init__(self, files: Sequence[str], num_words: int = 13, items: Sequence[Item] = ()) -> None:
        """Read `files`: in JSONL, every string of a row is an item; any other text is one item. `items` are
        looked for as well.

        DataError when a file cannot be read, a row is not JSON, or a file has nothing to look for.
        """
        self.num_words = num_words
        self.num_too_short = 0
        self._items: list[Item] = []
        by_size: dict[int, list[int]] = {}
        for item, size in (*self._of_files(files), *self._long_enough(items)):
            by_size.setdefault(size, []).append(len(self._items))
            self._items.append(item)
        self._ngrams = [_Ngrams(size, self._items, by_size[size]) for size in sorted(by_size, reverse=True)]

    def _of_files(self, files: Sequence[str]) -> Iterator[tuple[Item, int]]:
        for file in files:
            found = list(self._long_enough(list(read_items(file))))
            if not found:
                raise DataError(
                    f"evaluation file {file} has no item of {self._fewest} or more words",
                    "take it out of data.decontaminate: what is shorter is met by accident",
                )
            yield from found

    @property
    def _fewest(self) -> int:
        return min(MIN_ITEM_WORDS, self.num_words)

    def _long_enough(self, items: Sequence[Item]) -> Iterator[tuple[Item, int]]:
        """The items that are looked for, each with the size of its n-grams."""
        for item, count in zip(items, _count_words([item.text for item in items]), strict=True):
            if count < self._fewest:
                self.num_too_short += 1
            else:
                yield item, min(count, self.num_words)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all n-grams, wherever their files lie."""
        digest = hashlib.sha256()
        for ngrams in self._ngrams:
            digest.update(ngrams.size.to_bytes(8, "little") + ngrams.hashes.astype("<u8").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "num_words": self.num_words,
            "items": len(self._items),
            "items_too_short": self.num_too_short,
            "ngrams": sum(len(ngrams.hashes) for ngrams in self._ngrams),
            "digest": self.digest,
        }

    def find(self, texts: Sequence[str]) -> list[str | None]:
        """For each text the name of an item that it holds an n-gram of, or None.

        It is the longest size's first n-gram in the text, and the first item that has it.
        """
        found: list[str | None] = []
        for group in in_groups(texts):
            found += self._find(texts[group])
        return found

    def ngrams_in(self, texts: Sequence[str]) -> set[tuple[str, ...]]:
        """Every n-gram of an item that one of the texts holds, as words."""
        found: set[tuple[str, ...]] = set()
        for group in in_groups(texts):
            own = texts[group]
            words, words_of = hash_words(own), cache(split_words)
            for ngrams in self._ngrams:
                for number, place, item, item_place in ngrams.matches(words):
                    piece = words_of(own[number])[place : place + ngrams.size]
                    # Equal hashes have only made it likely.
                    if piece == words_of(self._items[item].text)[item_place : item_place + ngrams.size]:
                        found.add(tuple(piece))
        return found

    def ngrams_of(self, text: str) -> list[tuple[str, ...]]:
        """The n-grams that an item of this text is looked for by; none for one that is too short."""
        words = split_words(text)
        if len(words) < self._fewest:
            return []
        size = min(len(words), self.num_words)
        return [tuple(words[first : first + size]) for first in range(len(words) - size + 1)]

    def _find(self, texts: Sequence[str]) -> list[str | None]:
        found: list[str | None] = [None] * len(texts)
        words = hash_words(texts)
        words_of = cache(split_words)
        for ngrams in self._ngrams:
            for number, place, item, item_place in ngrams.matches(words):
                if found[number] is not None:
                    continue
                # Equal hashes have only made it likely.
                own = words_of(texts[number])[place : place + ngrams.size]
                if own == words_of(self._items[item].text)[item_place : item_place + ngrams.size]:
                    found[number] = self._items[item].name
        return found


class _Ngrams:
    """The n-grams of one size, found by hash."""

    def __init__(self, size: int, items: Sequence[Item], numbers: Sequence[int]) -> None:
        self.size = size
        texts = [items[number].text for number in numbers]
        hashes, owners, places = [], [], []
        for group in in_groups(texts):
            words = hash_words(texts[group])
            ngrams = hash_ngrams(words, size)
            local, own_places = _places(words, ngrams, size)
            hashes.append(ngrams.hashes)
            owners.append(np.asarray(numbers[group], dtype=np.int64)[local])
            places.append(own_places)
        self.hashes, first = np.unique(np.concatenate(hashes), return_index=True)
        self._owners, self._places = np.concatenate(owners)[first], np.concatenate(places)[first]
        # Nearly all n-grams of a text are turned away by one look into a table that fits a cache.
        bits = min(26, max(16, (16 * len(self.hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._may_hold = np.zeros(2**bits, dtype=np.bool_)
        self._may_hold[self.hashes >> self._shift] = True

    def matches(self, words: Words) -> Iterator[tuple[int, int, int, int]]:
        """(text, first word in it, item, first word in it) of every n-gram of `words` that is known."""
        ngrams = hash_ngrams(words, self.size)
        likely = np.flatnonzero(self._may_hold[ngrams.hashes >> self._shift])
        where = np.minimum(np.searchsorted(self.hashes, ngrams.hashes[likely]), len(self.hashes) - 1)
        known = self.hashes[where] == ngrams.hashes[likely]
        if not known.any():
            return iter(())
        texts, places = _places(words, ngrams, self.size)
        likely, where = likely[known], where[known]
        columns = (texts[likely], places[likely], self._owners[where], self._places[where])
        return zip(*(column.tolist() for column in columns), strict=True)


def _places(words: Words, ngrams: Words, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each n-gram the number of its text, and its first word there."""
    texts = np.repeat(np.arange(len(ngrams.bounds) - 1), np.diff(ngrams.bounds))
    return texts, ngram_starts(words.bounds, size)[0] - words.bounds[texts]


def _count_words(texts: Sequence[str]) -> list[int]:
    counts: list[int] = []
    for group in in_groups(texts):
        counts += np.diff(hash_words(texts[group]).bounds).tolist()
    return counts


def read_items(file: str) -> Iterator[Item]:
    """The items of one file; DataError says what is wrong with it."""
    path = Path(file)
    if path.suffix in _NEITHER:
        raise DataError(
            f"evaluation file {file} is neither text nor JSONL", "write its items as JSONL, uncompressed"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"evaluation file {file} cannot be read: {error.strerror}", "see data.decontaminate"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"evaluation file {file} is not UTF-8 text (byte {error.start:,})", "store it as UTF-8"
        ) from error
    if path.suffix not in _JSONL:
        yield Item(file, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield from (Item(f"{file}:{number}", value) for value in _strings(_row(file, number, line)))


def _row(file: str, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"evaluation file {file} has a malformed row in line {number:,}: {error}",
            "mend or remove the line",
        ) from error


def _strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value, its keys apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
