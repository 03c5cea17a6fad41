"""From rows to a dataset of examples: two readings of the source, or one when there is a tokenizer.

    read:    row -> candidates, checked; repeats dropped; train or held out, by a hash of the prompt (of
    Python
             functions: of the file), so that no prompt is on both sides
    train:   a tokenizer on the text of the train split, where none was given
    encode:  candidates -> ids and spans, written as the documents of one part

What could not be taken is counted by reason and listed, as for text. Single-process: a million conversations
take minutes.
"""

import hashlib
import io
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import seedbed
from data.config import DataConfig
from data.examples.encoding import ChatEncoder, Sequence
from data.examples.messages import Candidates, Rejected, candidates_of
from data.examples.python_functions import rows_of
from data.examples.templates import Template
from data.shard_writer import SplitWriter, token_dtype
from data.shards import DROPS, FORMAT, MANIFEST, SPLITS, VERSION, manifest_digest, table_name
from data.sources import Document, Drop, Source
from data.split import shard_table
from data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from seedbed.errors import DataError
from seedbed.files import HashingWriter, canonical_json, digest_of, write_json
from seedbed.progress import Progress, human_count
from seedbed.randomness import uniform_of


class Read(NamedTuple):
    """An example as it was read."""

    id: str
    source: str
    candidates: Candidates
    split: str


class ExampleBuild:
    """One build in `folder`. It is short enough to begin anew when it was killed."""

    def __init__(self, config: DataConfig, source: Source, folder: Path) -> None:
        self.config, self.source, self.out = config, source, folder / "dataset"
        self._drops: list[Drop] = []
        self._num_replaced = 0
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}

    def run(self, described: dict[str, Any]) -> dict[str, Any]:
        """Write the whole dataset, the manifest last; returns the manifest."""
        self.out.mkdir(exist_ok=True)
        for entry in sorted(self.out.rglob("*"), reverse=True):
            entry.rmdir() if entry.is_dir() else entry.unlink()
        tokenizer = self._tokenizer()
        template = Template.load(self.config.template, tokenizer)
        encoder = ChatEncoder(tokenizer, template)
        _tell(tokenizer, template)
        tables = self._encode(encoder)
        if not self._counts["train"]["examples"]:
            reasons = Counter(drop.reason for drop in self._drops)
            found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
            first = f"; the first: {self._drops[0].source}: {self._drops[0].detail}" if self._drops else ""
            if not self._drops:
                raise DataError(f"source {self.source.name} is empty", "give a file with rows")
            raise DataError(
                f"source {self.source.name} has no example to learn from (dropped: {found}{first})",
                f"give rows of data.format = {self.config.format!r}, or name the format that they are of",
            )
        return self._manifest(described, tokenizer, template, tables)

    def _tokenizer(self) -> Tokenizer:
        if self.config.tokenizer:
            return load_tokenizer(self.config.tokenizer)
        with Progress("train tokenizer", self.source.total_bytes, "B") as bar:
            read = self._read(bar)
            texts = (text for example in read if example.split == "train" for text in _texts(example))
            trained = train_tokenizer(texts, self.config.vocab_size, self.config.tokenizer_kind)
        self._drops.clear()
        self._num_replaced = 0
        return trained

    def _read(self, bar: Progress) -> Iterator[Read]:
        """The examples of the source, in order; what is none is put down among the drops."""
        seen: set[bytes] = set()
        for item in self.source.documents(bar.advance):
            if isinstance(item, Drop):
                self._drops.append(item)
                continue
            self._num_replaced += item.replaced
            for id, row in self._rows(item):
                text = item.text if self.config.reads_rows else row["prompt"] + row["response"]
                digest = hashlib.sha256(text.encode()).digest()[:16]
                if digest in seen and self.config.drop_exact_duplicates:
                    self._drops.append(Drop(id, item.source, "exact_duplicate", "the same example as before"))
                    continue
                seen.add(digest)
                try:
                    candidates = candidates_of(row, self.config.format)
                except Rejected as error:
                    self._drops.append(Drop(id, item.source, error.reason, error.detail))
                    continue
                key = item.id if self.config.format == "python-functions" else candidates.prompt_key
                draw = uniform_of(self.config.seed, "held-out example", key)
                split = "holdout" if draw < self.config.holdout_fraction else "train"
                yield Read(id, item.source, candidates, split)

    def _rows(self, document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
        if self.config.reads_rows:
            yield document.id, document.meta
            return
        try:
            for row in rows_of(document.text):
                yield f"{document.id}:{row.pop('name')}", row
        except Rejected as error:
            self._drops.append(Drop(document.id, document.source, error.reason, error.detail))

    def _encode(self, encoder: ChatEncoder) -> dict[str, Any]:
        """Write the shards; the table of each split."""
        folder = self.out / "part-00000"
        folder.mkdir()
        size = encoder.tokenizer.vocab_size
        common: dict[str, Any] = {"part": 0, "vocab_size": size, "shard_tokens": self.config.shard_tokens}
        with (
            Progress("encode", self.source.total_bytes, "B") as bar,
            SplitWriter(folder, split="train", **common) as train,
            SplitWriter(folder, split="holdout", **common) as holdout,
        ):
            num_tokens = 0
            for example in self._read(bar):
                try:
                    sequences = [encoder.encode(one) for one in example.candidates.conversations]
                except Rejected as error:
                    self._drops.append(Drop(example.id, example.source, error.reason, error.detail))
                    continue
                _write(
                    holdout if example.split == "holdout" else train, example, sequences, encoder.tokenizer
                )
                counts = self._counts[example.split]
                counts["examples"] += 1
                counts["sequences"] += len(sequences)
                counts["trained_tokens"] += sum(sequence.num_trained for sequence in sequences)
                num_tokens += sum(len(sequence.tokens) for sequence in sequences)
                bar.note = f"{human_count(num_tokens)} tokens"
        return {"train": shard_table(train.rows), "holdout": shard_table(holdout.rows)}

    def _manifest(
        self, described: dict[str, Any], tokenizer: Tokenizer, template: Template, tables: dict[str, Any]
    ) -> dict[str, Any]:
        files = {}
        with HashingWriter(self.out / DROPS) as file:
            for drop in self._drops:
                row = {"id": drop.id, "source": drop.source, "reason": drop.reason, "detail": drop.detail}
                file.write(canonical_json(row) + b"\n")
        files[DROPS] = file.receipt()
        for name, table in tables.items():
            content = io.BytesIO()
            np.save(content, table)
            with HashingWriter(self.out / table_name(name)) as file:
                file.write(content.getvalue())
            files[table_name(name)] = file.receipt()
        with HashingWriter(self.out / tokenizer.file_name) as file:
            file.write(tokenizer.to_bytes())
        files[tokenizer.file_name] = file.receipt()
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "tokenizer": {"file": tokenizer.file_name} | tokenizer.describe(),
            "token_dtype": token_dtype(tokenizer.vocab_size),
            "splits": {name: _totals(table) for name, table in tables.items()},
            "examples": {
                "format": self.config.format,
                "template": self.config.template,
                "template_source": template.source,
                "spelled_as_text": template.spelled,
                "splits": {name: dict(counts) for name, counts in self._counts.items()},
            },
            "repeated_ids": 0,
            "drops": dict(sorted(Counter(drop.reason for drop in self._drops).items())),
            "dropped_file": DROPS,
            "replaced": self._num_replaced,
            "edited": 0,
            "near_duplicate_groups": {},
            "filters": {},
            "decontamination": {},
            "files": files,
            "source": self.source.describe(),
            "config": described,
            "library_versions": {
                "python": platform.python_version(),
                "seedbed": seedbed.__version__,
                "numpy": np.__version__,
                "tokenizers": version("tokenizers"),
                "jinja2": version("jinja2"),
            },
        }
        manifest["digest"] = manifest_digest(manifest)
        write_json(self.out / MANIFEST, manifest)
        return manifest


def _tell(tokenizer: Tokenizer, template: Template) -> None:
    """What a user should know of a tokenizer and a template that do not quite fit."""
    if template.spelled:
        print(
            f"notice: the tokenizer has no special token {', '.join(template.spelled)}: the template "
            f"{template.origin} spells each as text, so that a message which does the same cannot be told "
            "from a turn",
            file=sys.stderr,
        )
    if "space before" in tokenizer.lossy_because:
        print(
            "notice: this tokenizer puts a space before a text, and so before each answer and what follows",
            file=sys.stderr,
        )


def sequence_row(example: Read, sequences: list[Sequence], place: int) -> bytes:
    """What the dataset keeps of one sequence beside its tokens, as canonical JSON."""
    candidates = example.candidates
    digest = hashlib.sha256(np.array(sequences[place].tokens, dtype="<u4").tobytes()).hexdigest()
    row: dict[str, Any] = {
        "group": [place, len(sequences)],
        "id": example.id,
        "rank": candidates.ranks[place],
        "sha256": digest,
        "source": example.source,
        "spans": [list(span) for span in sequences[place].spans],
    }
    # Keys between "bytes" and "tokens", as the writer's canonical rows need it.
    if candidates.margin:
        row["margin"] = candidates.margin
    if candidates.weight != 1:
        row["sample_weight"] = candidates.weight
    return canonical_json(row)


def _write(writer: SplitWriter, example: Read, sequences: list[Sequence], tokenizer: Tokenizer) -> None:
    ended = [[*sequence.tokens, tokenizer.end_of_text_id] for sequence in sequences]
    writer.write(
        [sequence_row(example, sequences, place) for place in range(len(sequences))],
        np.array([sequence.num_bytes for sequence in sequences], dtype=np.int64),
        np.concatenate([np.array(tokens, dtype=np.int64) for tokens in ended]),
        np.cumsum([len(tokens) for tokens in ended]),
    )


def _texts(example: Read) -> Iterator[str]:
    for conversation in example.candidates.conversations:
        yield from (message["content"] for message in conversation.messages if message["content"])


def _totals(table: Any) -> dict[str, int]:
    return {"shards": len(table)} | {
        name: int(table[name].sum()) for name in ("documents", "tokens", "utf8_bytes")
    }


def dependencies(config: DataConfig) -> dict[str, Any]:
    """What examples depend on that the configuration only names: the content of a template's file."""
    path = Path(config.template).expanduser()
    content = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {"template": digest_of(content), "version": 1}
