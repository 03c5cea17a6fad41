"""Where documents come from: `open_source(config)` gives a `Source`, read as often as needed.

Every source yields, in an order that is the same each time, the documents that can be read
and a `Drop` for each one that cannot; as a whole, or in parts that any process can read alone.
"""

from data.sources.documents import Advance, Document, Drop, Source
from data.sources.opening import open_source
from data.sources.pieces import Piece, Tally, check_malformed
from data.sources.reading import read_piece

__all__ = [
    "Advance",
    "Document",
    "Drop",
    "Piece",
    "Source",
    "Tally",
    "check_malformed",
    "open_source",
    "read_piece",
]
