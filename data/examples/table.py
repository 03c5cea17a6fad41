"""What a split of examples keeps beside its tokens, in memory: where sequences lie, and what is trained of
them.

It is read once, from the hashed rows of the shards: some 20 microseconds and 60 bytes a sequence. Tokens
stay on the disk until a sample needs them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.shards import Dataset
from data.split import Split
from seedbed.errors import ConfigError, DataError, TooLittleData

_TABLES: dict[tuple[str, str], "ExampleTable"] = {}


def is_examples(dataset: Dataset) -> bool:
    """Whether a dataset holds examples, not running text."""
    return "examples" in dataset.manifest


def format_of(dataset: Dataset) -> str:
    """The `data.format` that a dataset was built of."""
    return str(dataset.manifest.get("examples", {}).get("format", "text"))


def require_format(dataset: Dataset, formats: tuple[str, ...], objective: str) -> None:
    """ConfigError unless the dataset is of one of these formats."""
    if format_of(dataset) not in formats:
        raise ConfigError(
            f'objective.name = "{objective}" learns from examples, and {dataset.location} was built with '
            f'data.format = "{format_of(dataset)}"',
            f"build one with data.format set to one of: {', '.join(formats)}",
        )


class ExampleTable:
    """S sequences in E examples; those of an example follow each other."""

    def __init__(self, split: Split) -> None:
        self.split = split
        rows = list(split.provenances())
        lengths = split.lengths()
        self.lengths: NDArray[np.int64] = lengths[:, 0] - 1
        """[S] tokens, without the end-of-text id that ends a document of the shards."""
        self.starts: NDArray[np.int64] = np.cumsum(lengths[:, 0]) - lengths[:, 0]
        """[S] the first token in the split."""
        try:
            self.ranks: NDArray[np.int32] = np.array([row["rank"] for row in rows], dtype=np.int32)
            places = [row["group"][0] for row in rows]
            num_spans = [len(row["spans"]) for row in rows]
            spans = [bound for row in rows for span in row["spans"] for bound in span]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"the {split.name} split holds documents, not examples (no {error})",
                "build the dataset with data.format set to what its rows are",
            ) from None
        self.spans: NDArray[np.int32] = np.array(spans, dtype=np.int32).reshape(-1, 2)
        self._first_span = np.concatenate([[0], np.cumsum(num_spans, dtype=np.int64)])
        self.weights: NDArray[np.float32] = np.array(
            [_number(r, "sample_weight", 1) for r in rows], np.float32
        )
        self.margins: NDArray[np.float32] = np.array([_number(r, "margin", 0) for r in rows], np.float32)
        self.firsts: NDArray[np.int64] = np.append(
            np.flatnonzero(np.array(places, dtype=int) == 0), len(rows)
        )
        """[E + 1] the first sequence of each example, and S."""

    @classmethod
    def of(cls, dataset: Dataset, name: str) -> "ExampleTable":
        """The table of a split, kept: a run asks for it several times."""
        key = (dataset.digest, name)
        if key not in _TABLES:
            _TABLES[key] = cls(dataset.split(name))
        return _TABLES[key]

    @property
    def num_sequences(self) -> int:
        return len(self.ranks)

    @property
    def num_examples(self) -> int:
        return len(self.firsts) - 1

    def spans_of(self, sequence: int) -> NDArray[np.int32]:
        """[P, 2] begin and end of what is trained."""
        return self.spans[self._first_span[sequence] : self._first_span[sequence + 1]]

    def first_trained(self) -> NDArray[np.int64]:
        """[S] the first trained token that something comes before."""
        if not self.num_sequences:
            return np.empty(0, dtype=np.int64)
        return np.maximum(1, self.spans[self._first_span[:-1], 0]).astype(np.int64)

    def tokens(self, sequence: int, limit: int | None = None) -> NDArray[np.int64]:
        """The ids of a sequence, of its first `limit` tokens at most."""
        start, length = int(self.starts[sequence]), int(self.lengths[sequence])
        return self.split.tokens(start, start + min(length, limit or length))

    def trained(self, sequence: int, length: int) -> NDArray[np.bool_]:
        """[length] whether each of the first tokens is trained; never the first, which nothing comes
        before."""
        mask = np.zeros(length, dtype=bool)
        for start, stop in self.spans_of(sequence).tolist():
            mask[max(1, start) : stop] = True
        return mask


def _number(row: dict[str, Any], name: str, default: float) -> float:
    return float(row.get(name, default))


def nothing_fits(split: Split, context: int, counted: str) -> TooLittleData:
    """The error of a split of which no example fits into the context."""
    return TooLittleData(
        f"the {split.name} split has no example that fits into model.context = {context} ({counted})",
        'give more or shorter examples, or set a larger model.context; objective.too_long = "truncate" keeps '
        "those of which the prompt fits",
    )
