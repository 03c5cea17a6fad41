"""The sections `[data]`, how text becomes tokens, and `[order]`, how tokens are read."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from seedbed.settings import STRICT

FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
TokenizerKind = Literal["byte-bpe", "unigram", "sentencepiece-bpe", "wordpiece"]
Format = Literal[
    "text",
    "messages",
    "prompt-response",
    "instruction",
    "preference",
    "ranking",
    "feedback",
    "python-functions",
]
Packing = Literal["concat", "best-fit", "first-fit-decreasing"]


class DataConfig(BaseModel):
    """Names a built dataset, or says how to build one."""

    model_config = STRICT

    path: str = ""
    """A dataset that `seedbed data build` wrote, a folder or an fsspec URL. Empty: built from `source`,
    once, into the cache."""

    paths: dict[str, str] = Field(default_factory=dict)
    """Several datasets by name, to be mixed as [order] says, instead of `path`."""

    source: str = "stdlib"
    """Where the text is: "stdlib" (the running Python's own standard library), a folder, a text, JSONL
    (.jsonl, .jsonl.gz, .jsonl.zst) or Parquet file, "hf:NAME" (a dataset of the Hugging Face Hub, or one
    that `datasets` saved to a local folder), or an fsspec URL of files such as s3://bucket/folder. A lone
    text file is cut into passages at blank lines."""

    format: Format = "text"
    """What a row is. "text": a document. Examples, for fine-tuning: "messages" (a conversation),
    "prompt-response", "instruction" (with "input" and "output"); for preferences: "preference" ("chosen" and
    "rejected"), "ranking" ("responses", best first), "feedback" ("label": true or false). "python-functions":
    files of Python, whose signatures with docstrings are prompts and whose bodies are responses."""

    template: str = "chatml"
    """For examples: how a conversation becomes text: "chatml", "llama3", "qwen", "mistral", "gemma", "zephyr"
    (needs no special tokens), "plain" (no roles), or a .jinja file as in `transformers`."""

    pattern: str = "*"
    """Which files of a folder to read: globs, separated by commas, such as "*.py,*.md". A glob without "/"
    is matched against file names at any depth, one with "/" against the path inside the folder.
    Names that start with a dot are passed over and counted."""

    hf_config: str = ""
    """The configuration of a Hugging Face dataset that has several."""

    hf_split: str = Field("train", min_length=1)
    """The split of a Hugging Face dataset to read."""

    text_field: str = Field("text", min_length=1)
    """The key or column of a row that holds the text."""

    id_field: str = Field("id", min_length=1)
    """The key or column of a row that holds its id; rows without one are called file:line."""

    label_field: str = ""
    """The key or column of a row that holds its label, for a classifier to learn; of files, "folder" is the
    first folder of their path. Empty records no labels; a document without one is kept without."""

    on_undecodable: Literal["drop", "replace", "fail"] = "drop"
    """What to do with text that is not UTF-8, or that holds NUL: drop the document (counted and listed),
    replace what is wrong by U+FFFD (counted), or fail."""

    max_malformed_share: float = Field(0.01, ge=0, le=1)
    """Share of a file's rows that may be malformed or lack the text before the build fails."""

    max_document_bytes: int = Field(2**26, ge=1, le=2**40)
    """A longer document, or line of a JSONL file, is dropped and counted, and never held in memory whole."""

    filters: tuple[str, ...] = Field((), strict=False)
    """Quality filters in the order they are applied: gopher_quality, gopher_repetition, c4, fineweb."""

    filter_options: dict[str, float | bool] = Field(default_factory=dict)
    """Thresholds that differ from the published ones, such as {"gopher_quality.min_words" = 30}."""

    decontaminate: tuple[str, ...] = Field((), strict=False)
    """Text or JSONL files of evaluation items: documents that share an n-gram with one are dropped."""

    decontaminate_words: int = Field(13, ge=1)
    """The words of such an n-gram (GPT-3 used 13)."""

    drop_exact_duplicates: bool = True
    """Keep only the first of the documents with the same text."""

    drop_near_duplicates: bool = False
    """Keep only the first of each cluster of near-copies: MinHash of word 5-grams in 14 bands of 8 rows."""

    near_duplicate_threshold: float = Field(0.5, ge=0, le=1)
    """Word 5-gram Jaccard similarity from which two documents are near-copies for the held-out split: these
    stay on one side of it. 0: not looked for."""

    holdout_fraction: float = Field(0.05, ge=0, le=0.5)
    """Share of the text, by groups of near-copies, that is kept out of training for validation. 0: none."""

    tokenizer: str = ""
    """An existing tokenizer.json, or SentencePiece .model, or a dataset, model or run that has one. Empty:
    one is trained on the train split."""

    tokenizer_kind: TokenizerKind = "byte-bpe"
    """What is trained without `tokenizer`: byte-level BPE, SentencePiece unigram or BPE, or WordPiece."""

    vocab_size: int = Field(4096, ge=257, le=2**24)
    """Vocabulary of a tokenizer that is trained here, special tokens included. Unused with `tokenizer`."""

    tokenizer_train_bytes: int = Field(2**30, ge=1, le=2**60)
    """Text that a tokenizer is trained on at most: whole documents, chosen by hash."""

    shard_tokens: int = Field(2**27, ge=1, le=2**40)
    """Tokens per shard file at most. A document is never cut, so a longer one makes a longer shard."""

    part_bytes: int = Field(2**26, ge=1, le=2**60)
    """Input that one worker takes at a time. Its shards are its own, so this is part of the result."""

    seed: int = Field(0, ge=0)
    """Decides which groups of documents are held out."""

    @property
    def holds_examples(self) -> bool:
        """Whether the dataset is of examples: conversations or preferences, not running text."""
        return self.format != "text"

    @property
    def reads_rows(self) -> bool:
        """Whether rows of JSON are read whole, not for a text that they hold."""
        return self.format not in ("text", "python-functions")


class OrderConfig(BaseModel):
    """How samples are drawn from token shards: what a run's data position means."""

    model_config = STRICT

    packing: Packing = "concat"
    """How documents fill samples: "concat" chunks the run of all tokens; "best-fit" and
    "first-fit-decreasing" lay whole documents side by side and cut few of them."""

    overflow: Literal["split", "crop"] = "split"
    """What becomes of documents that fit no sample of their block when packing: cut, so that no token is
    lost, or cropped, and the room that is left padded."""

    within_documents: bool = False
    """Keep attention inside each document, count positions from its start, learn nothing across its end."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Dataset of data.paths -> its share of samples. Empty: by their tokens."""

    stages: tuple["MixtureStage", ...] = Field((), strict=False)
    """Weights that change with the tokens seen, instead of `weights`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.weights and self.stages:
            raise ValueError(
                "order.weights and order.stages exclude each other: put the weights into the stages"
            )
        return self


class MixtureStage(BaseModel):
    """Weights that hold from a number of tokens seen until the next stage."""

    model_config = STRICT

    from_tokens: int = Field(ge=0)
    weights: dict[str, float]
