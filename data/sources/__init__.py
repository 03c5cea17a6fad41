"""Where documents come from: `open_source(config)` gives a `Source`, read as often as needed.

Every source yields, in an order that is the same each time, the documents that can be read
and a `Drop` for each one that cannot.
"""

from data.sources.documents import Document, Drop, FileEntry, Source
from data.sources.opening import open_source

__all__ = ["Document", "Drop", "FileEntry", "Source", "open_source"]
