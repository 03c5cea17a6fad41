"""Quality filters: which documents are worth learning from, by published rules, at array speed.

    text_filters       the filters of a build, in order: texts in, texts or rejections out
    gopher_quality, gopher_repetition, c4, fineweb      the rules, one file each
    page, words, ngrams                                 what the rules look at, worked out once for each text
    verdict                                             thresholds compared, rejections put into words
    code_points, english, word_tables, hashing          the tables under it
    compiled                                            how its loops become machine code

Importing this package needs nothing that is optional; `TextFilters` needs the extra `filters`.
"""

from data.filters.text_filters import TextFilters
from data.filters.verdict import Rejected

__all__ = ["Rejected", "TextFilters"]
