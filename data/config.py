"""The `[data]` section of a configuration: where text comes from and how it becomes tokens."""

from typing import Literal

from pydantic import BaseModel, Field

from seedbed.settings import STRICT


class DataConfig(BaseModel):
    """Names a built dataset, or says how to build one."""

    model_config = STRICT

    path: str = ""
    """A dataset that `seedbed data build` wrote. Empty: built from `source`, once, into the cache."""

    source: str = "stdlib"
    """Where the text is: "stdlib" (the running Python's own standard library), a folder, a text file,
    or a .jsonl, .jsonl.gz or .jsonl.zst file. A lone text file is cut into passages at blank lines."""

    pattern: str = "*"
    """Which files of a folder to read: globs, separated by commas, such as "*.py,*.md". A glob without "/"
    is matched against file names at any depth, one with "/" against the path inside the folder.
    Names that start with a dot are passed over and counted."""

    text_field: str = Field("text", min_length=1)
    """The key of a JSONL row that holds the text."""

    id_field: str = Field("id", min_length=1)
    """The key of a JSONL row that holds its id; rows without one are called file:line."""

    tokenizer: str = ""
    """An existing tokenizer.json of a byte-level BPE. Empty: one is trained on the train split."""

    vocab_size: int = Field(4096, ge=257, le=2**24)
    """Vocabulary of a tokenizer that is trained here, <|endoftext|> included. Unused with `tokenizer`."""

    holdout_fraction: float = Field(0.05, gt=0, le=0.5)
    """Share of the text, by groups of near-copies, that is kept out of training for validation."""

    near_duplicate_threshold: float = Field(0.5, gt=0, le=1)
    """Word 5-gram Jaccard similarity from which two documents are near-copies: these stay on one side
    of the split."""

    on_undecodable: Literal["drop", "replace", "fail"] = "drop"
    """What to do with text that is not UTF-8, or that holds NUL: drop the document (counted and listed),
    replace what is wrong by U+FFFD (counted), or fail."""

    max_malformed_share: float = Field(0.01, ge=0, le=1)
    """Share of a JSONL file's rows that may be malformed or lack the text before the build fails."""

    shard_tokens: int = Field(2**27, ge=1)
    """Tokens per shard file. A document is never cut, so a longer one makes a longer shard."""

    seed: int = Field(0, ge=0)
    """Decides which groups of documents are held out."""
