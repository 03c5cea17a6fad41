"""Labels reach the classifier: from rows and folders, through a build, to samples."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.bert_masking import Vocabulary
from data.build import build_dataset
from data.config import DataConfig
from data.labelled import LabelledStream, count_labels
from data.shards import Dataset
from seedbed.errors import DataError, TooLittleData
from seedbed.randomness import generator


def text_of(number: int) -> str:
    return " ".join(f"w{word}" for word in generator(number, "text").integers(400, size=60))


def built(source, out, **settings):
    config = DataConfig(
        source=str(source),
        vocab_size=400,
        tokenizer_kind="wordpiece",
        near_duplicate_threshold=0,
        holdout_fraction=0.2,
        **settings,
    )
    return Dataset.open(str(build_dataset(config, out)))


def labels_of(dataset) -> dict[str, str | None]:
    splits = [dataset.split(name) for name in ("train", "holdout")]
    return {row["id"]: row.get("label") for split in splits for row, _ in split.documents()}


def test_labels_of_rows(tmp_path):
    """Otherwise a labelled set would lose what makes it one; a row without a label keeps its text."""
    rows = [{"id": str(n), "text": text_of(n), "kind": n % 3} for n in range(30)]
    rows.append({"id": "none", "text": text_of(99)})
    expected = {row["id"]: None if "kind" not in row else str(row["kind"]) for row in rows}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.parquet"):
        dataset = built(tmp_path / name, tmp_path / f"{name}.out", label_field="kind")
        assert labels_of(dataset) == expected
    plain = built(tmp_path / "rows.jsonl", tmp_path / "plain")
    assert set(labels_of(plain).values()) == {None}


def test_labels_of_folders(tmp_path):
    """The commonest form of a labelled set: a folder for each label."""
    for number in range(20):
        file = tmp_path / "texts" / ("spam" if number % 2 else "ham") / "more" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text_of(number))
    (tmp_path / "texts" / "outside.txt").write_text(text_of(50))
    labels = labels_of(built(tmp_path / "texts", tmp_path / "out", label_field="folder"))
    assert {id.split("/")[0]: label for id, label in labels.items()} == {
        "spam": "spam",
        "ham": "ham",
        "outside.txt": None,
    }


def test_what_is_no_label_is_refused(tmp_path):
    """A list of labels taken as one would make as many classes as rows."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": text_of(0), "kind": ["a", "b"]}) + "\n")
    with pytest.raises(DataError, match="holds a list, not a label"):
        built(tmp_path / "rows.jsonl", tmp_path / "out", label_field="kind")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    rows = [{"text": text_of(n), "kind": "abc"[n % 3]} for n in range(60)] + [{"text": text_of(99)}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return built(folder / "rows.jsonl", folder / "out", label_field="kind")


def stream(dataset, labels=("a", "b", "c"), context=40, **options):
    words = Vocabulary.of(dataset.tokenizer())
    return LabelledStream(dataset.split("train"), labels, words, context, 0, **options), words


def test_samples_are_the_documents_with_their_labels(dataset):
    """Otherwise a text would be learned with the label of another."""
    rows = [(row.get("label"), tokens) for row, tokens in dataset.split("train").documents()]
    expected = {(label, tuple(tokens[:38])) for label, tokens in rows if label}
    samples, words = stream(dataset, crop_at_random=False)
    assert samples.num_samples == len(expected)
    batch = samples.batch(0, samples.num_samples)
    found = set()
    for tokens, valid, label in zip(batch.tokens, batch.valid, batch.labels, strict=True):
        text = tokens[valid]
        assert text[0] == words.cls_id
        assert text[-1] == words.sep_id
        assert (tokens[~valid] == words.pad_id).all()
        found.add(("abc"[label], tuple(text[1:-1])))
    assert found == expected
    assert count_labels([dataset.split("train")]).total() == len(expected)


def test_a_crop_is_of_its_document_and_its_epoch(dataset):
    """Otherwise the end of a long text would never be seen, or a resume would see another part."""
    samples, _ = stream(dataset)
    n = samples.num_samples
    again, _ = stream(dataset)
    assert np.array_equal(samples.batch(5, n).tokens, again.batch(5, n).tokens)
    starts = {tuple(row[1:6]) for epoch in range(20) for row in samples.batch(epoch * n, n).tokens}
    assert len(starts) > 3 * n


def test_a_label_that_is_left_out(dataset):
    """Rare labels can be left out; without any label there is nothing to learn."""
    samples, _ = stream(dataset, labels=("a", "c"))
    assert set(samples.batch(0, samples.num_samples).labels.tolist()) == {0, 1}
    with pytest.raises(TooLittleData, match="no document with a label"):
        stream(dataset, labels=("d",))
