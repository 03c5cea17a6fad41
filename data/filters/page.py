"""A text as the filters see it: code points, and the words among them, each worked out once."""

import functools

import numpy as np
from numpy.typing import NDArray

from data.filters.words import split_words


class Page:
    """One version of a document's text, shared by the filters that look at it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @functools.cached_property
    def codes(self) -> NDArray[np.uint32]:
        """uint32 [characters]: the code points."""
        return np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)

    @functools.cached_property
    def words(self) -> NDArray[np.int32]:
        """int32 [words, 2]: where each word starts and ends."""
        return split_words(self.codes)

    @classmethod
    def of_codes(cls, codes: NDArray[np.uint32]) -> "Page":
        """The page with these code points."""
        return cls(codes.tobytes().decode("utf-32-le", "surrogatepass"))
