"""The stages of a build, one after the other; within a stage, parts in any order on any worker."""

import hashlib
import io
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import seedbed
from data.build.decisions import EXACT_DUPLICATE, HOLDOUT, TRAIN, Decisions, decide, listed
from data.build.encode import encode_part, finished, surveyed_documents
from data.build.survey import EDITED, REJECTED, decontaminator_of, dependencies, filters_of, survey_part
from data.build.surveyed import Survey, is_sound
from data.build.workers import Result, Task, Workers
from data.config import DataConfig
from data.shard_writer import token_dtype
from data.shards import DROPS, FORMAT, MANIFEST, SPLITS, VERSION, manifest_digest, table_name
from data.sources import Drop, Piece, Source, check_malformed
from data.split import shard_table
from data.tokenizers import EncoderMismatch, Tokenizer, load_tokenizer, train_tokenizer
from seedbed.errors import DataError
from seedbed.files import HashingWriter, canonical_json, digest_of, write_atomic, write_json
from seedbed.progress import Progress, human_count


class Build:
    """One build in `folder`; what an earlier one finished there is used again."""

    def __init__(self, config: DataConfig, source: Source, folder: Path, workers: Workers) -> None:
        self.config, self.source, self.folder, self.workers = config, source, folder, workers
        self.out = folder / "dataset"
        self.parts: list[list[Piece]] = source.parts(config.part_bytes)
        files = tuple(str(Path(file).absolute()) for file in config.decontaminate)
        self._asked = config.model_copy(update={"decontaminate": files}).model_dump(mode="json")
        self._encoder_names: dict[str, str] = {}
        for name in ("survey", "fates", "tokenizer", "done", "dataset"):
            (folder / name).mkdir(exist_ok=True)

    def run(self, described: dict[str, Any]) -> dict[str, Any]:
        """Write the whole dataset into `folder/dataset`, the manifest last; returns the manifest."""
        try:
            return self._run(described, "auto")
        except EncoderMismatch as error:
            print(f"notice: {error.message}; everything is encoded anew, exactly", file=sys.stderr)
            return self._run(described, "exact")

    def _run(self, described: dict[str, Any], encoder: str) -> dict[str, Any]:
        given = self._store(load_tokenizer(self.config.tokenizer)) if self.config.tokenizer else None
        surveys = self._survey(given, encoder)
        decisions = decide(self.config, surveys)
        self._tell_of_holdout(surveys, decisions)
        file = given or self._store(self._trained(surveys, decisions))
        tokenizer = load_tokenizer(file)
        if tokenizer.lossy_because:
            print(
                f"notice: text does not come back from {file.name}: {tokenizer.lossy_because}",
                file=sys.stderr,
            )
        tables = self._encode(surveys, decisions, file, encoder)
        return self._manifest(described, surveys, decisions, tokenizer, tables)

    def _bar(self, label: str) -> Progress:
        return Progress(label, self.source.total_bytes, "B")

    def _task(self, part: int, **more: Any) -> Task:
        pieces = [piece.as_json() for piece in self.parts[part]]
        return {"part": part, "config": self._asked, "pieces": pieces, **more}

    def _work(self, label: str, function: Any, tasks: Sequence[Task]) -> Iterator[Result]:
        """Results of the tasks; the parts that need no work are counted as done at once."""
        with self._bar(label) as bar:
            todo = {task["part"] for task in tasks}
            bar.start_at(sum(_size(part) for number, part in enumerate(self.parts) if number not in todo))
            scratch = self.folder / "progress"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            num_tokens = 0
            for result in self.workers.run(function, tasks, bar.advance, scratch):
                num_tokens += result["tokens"]
                bar.note = f"{human_count(num_tokens)} tokens" if num_tokens else ""
                yield result

    def _survey(self, given: Path | None, encoder: str) -> list[Survey]:
        """Survey every part; with a tokenizer that is `given`, the documents are encoded on the way."""
        common = dependencies(self.config)
        more = {}
        if given:
            common |= self._encoding(given, encoder)
            more = {"tokenizer": str(given), "encoder": encoder}
        keys = [digest_of([common, [p.as_json() for p in part]])[:16] for part in self.parts]
        folders = [self.folder / "survey" / f"{number:05d}-{key}" for number, key in enumerate(keys)]
        tasks = []
        for number, out in enumerate(folders):
            if not is_sound(out):
                shutil.rmtree(out, ignore_errors=True)
                tasks.append(self._task(number, out=str(out), **more))
        for _ in self._work("survey", survey_part, tasks):
            pass
        surveys = [Survey(folder) for folder in folders]
        check_malformed((survey.counts["tallies"] for survey in surveys), self.config)
        if not any(survey.num_kept for survey in surveys):
            drops = self._reasons(surveys)
            found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(drops.items()))
            raise DataError(
                f"source {self.source.name} has no document to use (dropped: {found or 'none, it is empty'})",
                "point data.source at text, and see data.pattern, data.text_field, data.on_undecodable "
                "and data.filters",
            )
        return surveys

    def _tell_of_holdout(self, surveys: Sequence[Survey], decisions: Decisions) -> None:
        sizes = np.concatenate([survey.num_bytes for survey in surveys])
        total = int(sizes[decisions.fates < EXACT_DUPLICATE].sum())
        share = int(sizes[decisions.fates == HOLDOUT].sum()) / max(1, total)
        if share < self.config.holdout_fraction / 2:
            large = decisions.near_duplicate_groups["too_large_for_holdout"]
            print(
                f"notice: {share:.2%} of the text is held out, not {self.config.holdout_fraction:.2%}: whole "
                f"groups of near-copies are, and {large} of them are too large for it",
                file=sys.stderr,
            )

    def _reasons(self, surveys: Sequence[Survey]) -> Counter[str]:
        reasons = Counter(drop.reason for drop in self.source.drops)
        for survey in surveys:
            reasons.update(survey.counts["reasons"])
        return reasons

    def _store(self, tokenizer: Tokenizer) -> Path:
        """The tokenizer's file in the finished dataset."""
        file = self.out / tokenizer.file_name
        write_atomic(file, tokenizer.to_bytes())
        return file

    def _encoding(self, file: Path, encoder: str) -> dict[str, Any]:
        """What ids depend on, beside the text."""
        tokenizer = load_tokenizer(file, encoder)
        if encoder not in self._encoder_names:  # a fallback says so once
            self._encoder_names[encoder] = tokenizer.describe_encoder()
        return {"fingerprint": tokenizer.fingerprint, "encoder": self._encoder_names[encoder]}

    def _trained(self, surveys: Sequence[Survey], decisions: Decisions) -> Tokenizer:
        """The tokenizer of the train split, trained now or by an earlier build of the same."""
        config = self.config
        chosen = self._to_train_on(surveys, decisions)
        kind = [config.tokenizer_kind, config.vocab_size]
        key = digest_of([kind, [survey.folder.name for survey in surveys], digest_of(chosen.tolist())])
        for kept in (self.folder / "tokenizer").glob(f"{key[:16]}-*"):
            if kept.stem.endswith(_short_hash(kept.read_bytes())):
                return load_tokenizer(kept)
        with self._bar("train tokenizer") as bar:
            texts = self._texts(surveys, decisions, chosen, bar)
            trained = train_tokenizer(texts, config.vocab_size, config.tokenizer_kind)
        name = f"{key[:16]}-{_short_hash(trained.to_bytes())}{Path(trained.file_name).suffix}"
        write_atomic(self.folder / "tokenizer" / name, trained.to_bytes())
        return trained

    def _to_train_on(self, surveys: Sequence[Survey], decisions: Decisions) -> NDArray[np.bool_]:
        """[N]: documents of the train split, all of them or, by hash, as many as `tokenizer_train_bytes`."""
        chosen = decisions.fates == TRAIN
        sizes = np.concatenate([survey.num_bytes for survey in surveys])
        if sizes[chosen].sum() > self.config.tokenizer_train_bytes:
            draws = np.concatenate([survey.digests[:, :8].copy().view("<u8")[:, 0] for survey in surveys])
            train = np.flatnonzero(chosen)
            train = train[np.argsort(draws[train], kind="stable")]
            fitting = np.cumsum(sizes[train]) <= self.config.tokenizer_train_bytes
            fitting[0] = True
            chosen[train[~fitting]] = False
        return chosen

    def _texts(
        self, surveys: Sequence[Survey], decisions: Decisions, chosen: NDArray[np.bool_], bar: Progress
    ) -> Iterator[str]:
        for number, (part, survey) in enumerate(zip(self.parts, surveys, strict=True)):
            wanted = chosen[decisions.starts[number] : decisions.starts[number + 1]]
            if wanted.any():
                for item in surveyed_documents(self.config, part, survey, bar.advance):
                    if wanted[item.number]:
                        yield item.text

    def _encode(
        self, surveys: Sequence[Survey], decisions: Decisions, file: Path, encoder: str
    ) -> dict[str, NDArray[Any]]:
        """Write the shards of every part; the table of each split."""
        common = self._encoding(file, encoder) | {
            "version": VERSION,
            "shard_tokens": self.config.shard_tokens,
        }
        results: dict[int, Result] = {}
        tasks = []
        for part, survey in enumerate(surveys):
            fates = decisions.of_part(part)
            key = digest_of([common, part, survey.folder.name, fates.tobytes().hex()])
            done = self.folder / "done" / f"{part:05d}.json"
            if (result := finished(done, key, self.out)) is not None:
                results[part] = result
                continue
            out = self.out / f"part-{part:05d}"
            saved = self.folder / "fates" / f"{part:05d}.npy"
            np.save(saved, fates)
            more = {"out": str(out), "done": str(done), "key": key, "survey": str(survey.folder)}
            tasks.append(self._task(part, tokenizer=str(file), encoder=encoder, fates=str(saved), **more))
        results |= {result["part"]: result for result in self._work("encode", encode_part, tasks)}
        parts = range(len(surveys))
        return {name: shard_table(row for p in parts for row in results[p]["rows"][name]) for name in SPLITS}

    def _manifest(
        self,
        described: dict[str, Any],
        surveys: Sequence[Survey],
        decisions: Decisions,
        tokenizer: Tokenizer,
        tables: dict[str, NDArray[Any]],
    ) -> dict[str, Any]:
        self._clean(tokenizer.file_name, len(surveys))
        drops = self._reasons(surveys)
        files = {}
        with HashingWriter(self.out / DROPS) as file:
            for drop in self.source.drops:
                file.write(_row(drop))
            for survey in surveys:
                file.write(survey.drops())
            for drop in listed(surveys, decisions):
                drops[drop.reason] += 1
                file.write(_row(drop))
        files[DROPS] = file.receipt()
        files |= {
            table_name(name): _write(self.out / table_name(name), _npy(t)) for name, t in tables.items()
        }
        (self.out / tokenizer.file_name).unlink()
        files[tokenizer.file_name] = _write(self.out / tokenizer.file_name, tokenizer.to_bytes())
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "tokenizer": {"file": tokenizer.file_name} | tokenizer.describe(),
            "token_dtype": token_dtype(tokenizer.vocab_size),
            "splits": {name: _totals(table) for name, table in tables.items()},
            "repeated_ids": drops.pop("repeated_id", 0),
            "drops": dict(sorted(drops.items())),
            "dropped_file": DROPS,
            "replaced": sum(survey.counts["replaced"] for survey in surveys),
            "edited": sum(_edited(survey, decisions.of_part(n)) for n, survey in enumerate(surveys)),
            "near_duplicate_groups": decisions.near_duplicate_groups,
            "filters": filters.describe() if (filters := filters_of(self.config)) else {},
            "decontamination": index.describe() if (index := decontaminator_of(self.config)) else {},
            "files": files,
            "source": self.source.describe(),
            "config": described,
            "library_versions": {
                "python": platform.python_version(),
                "seedbed": seedbed.__version__,
                "numpy": np.__version__,
                "tokenizers": version("tokenizers"),
            },
        }
        manifest["digest"] = manifest_digest(manifest)
        write_json(self.out / MANIFEST, manifest)
        return manifest

    def _clean(self, tokenizer_file: str, num_parts: int) -> None:
        """Take away what an earlier build of other parts, or one that was killed, left in the dataset."""
        wanted = {tokenizer_file, *(f"part-{part:05d}" for part in range(num_parts))}
        for entry in self.out.iterdir():
            if entry.name not in wanted:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _edited(survey: Survey, fates: NDArray[np.uint8]) -> int:
    """Documents of the dataset whose text a filter has changed."""
    kept = survey.flags[survey.flags != REJECTED]
    return int(np.count_nonzero((kept == EDITED) & (fates < EXACT_DUPLICATE)))


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _size(part: Sequence[Piece]) -> int:
    return sum(piece.size for piece in part)


def _row(drop: Drop) -> bytes:
    row = {"id": drop.id, "source": drop.source, "reason": drop.reason, "detail": drop.detail}
    return canonical_json(row) + b"\n"


def _npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _write(path: Path, content: bytes) -> dict[str, Any]:
    with HashingWriter(path) as file:
        file.write(content)
    return file.receipt()


def _totals(table: NDArray[Any]) -> dict[str, int]:
    return {"shards": len(table)} | {
        name: int(table[name].sum()) for name in ("documents", "tokens", "utf8_bytes")
    }
