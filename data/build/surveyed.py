"""What the survey of a part left, read: see `data.build.survey`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.minhash import NUM_PERMUTATIONS
from seedbed.errors import DataError
from seedbed.files import digest_of
from seedbed.verified import VerifiedFile

# The type and the width of the columns; that of `tokens` is in survey.json.
COLUMNS = {
    "flags": ("u1", 1),
    "digests": ("u1", 32),
    "num_bytes": ("<i8", 1),
    "id_hashes": ("<u8", 1),
    "signatures": ("<u4", NUM_PERMUTATIONS),
    "ends": ("<i8", 1),
}

# Larger columns are mapped instead of loaded.
MAPPED_BYTES = 2**16


def is_sound(folder: Path) -> bool:
    """Whether `folder` is what `survey_part` wrote: what outlasted a crash may be damaged by it."""
    try:
        content = json.loads((folder / "survey.json").read_bytes())
        digest = content.pop("digest")
        for name, receipt in content["files"].items():
            VerifiedFile(folder / name, receipt, DataError, "").verify()
    except (OSError, ValueError, LookupError, AttributeError, DataError):
        return False
    return digest == digest_of(content)


class Survey:
    """What `survey_part` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, Any] = json.loads((folder / "survey.json").read_bytes())
        self.num_kept = len(self.num_bytes)

    @property
    def flags(self) -> NDArray[np.uint8]:
        return self._array("flags")

    @property
    def digests(self) -> NDArray[np.uint8]:
        return self._array("digests")

    @property
    def num_bytes(self) -> NDArray[np.int64]:
        return self._array("num_bytes")

    @property
    def id_hashes(self) -> NDArray[np.uint64]:
        return self._array("id_hashes")

    @property
    def signatures(self) -> NDArray[np.uint32]:
        return self._array("signatures")

    def _array(self, name: str) -> NDArray[Any]:
        file = self.folder / f"{name}.bin"
        dtype, width = COLUMNS.get(name, (self.counts["token_dtype"], 1))
        mapped = file.stat().st_size > MAPPED_BYTES
        array: NDArray[Any] = (
            np.memmap(file, dtype, mode="r").view(np.ndarray) if mapped else np.fromfile(file, dtype)
        )
        return array if width == 1 else array.reshape(-1, width)

    @property
    def is_encoded(self) -> bool:
        """Whether the tokenizer was there already."""
        return bool(self.counts["token_dtype"])

    @property
    def tokens(self) -> NDArray[Any]:
        """The ids of all documents kept, with end-of-text ids, if they were encoded."""
        return self._array("tokens")

    @property
    def ends(self) -> NDArray[np.int64]:
        """[kept]: where each document ends in `tokens`."""
        return self._array("ends")

    def provenances(self) -> Iterator[bytes]:
        """`provenance_row` of each document kept, in order."""
        with open(self.folder / "documents.jsonl", "rb") as file:
            for line in file:
                yield line[:-1]

    def drops(self) -> bytes:
        return (self.folder / "drops.jsonl").read_bytes()
