"""Hugging Face datasets, in the forms that `datasets` itself writes and reads."""

import os
import subprocess
import sys

import pytest

from data.config import DataConfig
from data.sources import Document, open_source, read_piece
from seedbed.errors import DataError

ROWS = {
    "id": [f"r{n}" for n in range(500)],
    "text": [f"row {n}: é😀 " * (n % 7 + 1) for n in range(500)],
    "label": list(range(500)),
}


def dataset_of(columns):
    # Imported late: it reads from the environment, when it is imported, that there is no network.
    from datasets import Dataset

    return Dataset.from_dict(columns)


@pytest.fixture(scope="module")
def rows():
    return dataset_of(ROWS)


def save(rows, folder, form):
    """The rows as one of the forms; returns what to set data.source to."""
    folder.mkdir()
    if form == "saved":
        rows.save_to_disk(folder, num_shards=3)
    elif form == "saved-dict":
        from datasets import DatasetDict

        DatasetDict(train=rows, test=rows.select(range(3))).save_to_disk(folder)
    elif form == "parquet":
        rows.select(range(200)).to_parquet(folder / "train-00000-of-00002.parquet")
        rows.select(range(200, 500)).to_parquet(folder / "train-00001-of-00002.parquet")
    elif form == "jsonl":
        rows.to_json(folder / "train.jsonl")
    elif form == "arrow":
        rows.save_to_disk(folder / "saved", num_shards=2)
        for number, path in enumerate(sorted((folder / "saved").glob("*.arrow"))):
            path.rename(folder / f"train-{number}.arrow")
        for path in (folder / "saved").iterdir():
            path.unlink()
        (folder / "saved").rmdir()
    return f"hf:{folder}"


def read(source, **options):
    opened = open_source(DataConfig(source=source, **options))
    counted = []
    items = list(opened.documents(counted.append))
    assert sum(counted) == opened.total_bytes > 0
    return items


@pytest.mark.parametrize("form", ["saved", "saved-dict", "parquet", "jsonl", "arrow"])
def test_every_local_form_is_read_whole_and_by_parts(tmp_path, rows, form):
    """Otherwise a dataset that works with `datasets` would have to be converted first, or lose rows."""
    source = save(rows, tmp_path / "corpus", form)
    items = read(source)
    assert [(item.id, item.text) for item in items] == list(zip(ROWS["id"], ROWS["text"], strict=True))
    config = DataConfig(source=source)
    parts = open_source(config).parts(10_000)
    assert parts == open_source(config).parts(10_000)
    assert len(parts) > 1 or form == "jsonl"
    pieces = [piece for part in parts for piece in part]
    assert [item for piece in pieces for item in read_piece(piece, config, lambda count: None)] == items


def test_rows_without_ids_are_numbered_through_all_parts(tmp_path, rows):
    """Otherwise documents of two parts would have one id."""
    source = save(rows.remove_columns("id"), tmp_path / "corpus", "saved")
    config = DataConfig(source=source)
    pieces = [piece for part in open_source(config).parts(5000) for piece in part]
    assert len(pieces) > 3
    ids = [item.id for piece in pieces for item in read_piece(piece, config, lambda count: None)]
    assert ids == [f"corpus:{number}" for number in range(1, 501)]


def test_split_is_chosen_and_a_missing_one_lists_the_others(tmp_path, rows):
    """Otherwise a model could be trained on a test set, or a typing error end in a traceback."""
    source = save(rows, tmp_path / "corpus", "saved-dict")
    assert len(read(source, hf_split="test")) == 3
    with pytest.raises(DataError, match="no split 'validation' but train, test"):
        read(source, hf_split="validation")
    folder = save(rows, tmp_path / "files", "parquet")
    with pytest.raises(DataError, match=r"'validation'.*'train'"):
        read(folder, hf_split="validation")


def test_configuration_is_chosen_and_a_missing_one_lists_the_others(tmp_path, rows):
    """Otherwise datasets of many languages could not be used."""
    for name in ("de", "en"):
        (tmp_path / name).mkdir()
        rows.select(range(3 if name == "de" else 5)).to_parquet(tmp_path / name / "train.parquet")
    card = "".join(f"  - config_name: {n}\n    data_files: {n}/*.parquet\n" for n in ("de", "en"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    assert len(read(f"hf:{tmp_path}", hf_config="de")) == 3
    with pytest.raises(DataError, match=r"(?s)data\.hf_config.*'de', 'en'"):
        read(f"hf:{tmp_path}")


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_missing_column_lists_those_that_are_there(tmp_path, rows, form):
    """Otherwise a user would have to load the dataset to learn the name."""
    source = save(rows, tmp_path / "corpus", form)
    with pytest.raises(DataError, match="no column 'content'; its columns are id, text, label"):
        read(source, text_field="content")


def test_nulls_and_long_texts_are_dropped(tmp_path):
    """Otherwise the promises about rows would hold for files alone."""
    rows = dataset_of({"text": ["good", None, "x" * 101]})
    items = read(save(rows, tmp_path / "corpus", "saved"), max_document_bytes=100, max_malformed_share=1)
    assert isinstance(items[0], Document)
    assert [item.reason for item in items[1:]] == ["missing_field", "too_long"]


def test_name_that_cannot_be_reached_says_what_was_tried():
    """Otherwise a cluster node without a network would say something about a cache."""
    code = (
        "from data.config import DataConfig; from data.sources import open_source\n"
        "open_source(DataConfig(source='hf:someone/corpus'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stderr.rpartition("DataError: ")[2]
    assert "hf:someone/corpus" in said
    assert "no local folder, so it was looked for on the Hub" in said
    assert "HF_HUB_OFFLINE" in said


def test_code_of_a_dataset_is_never_run(tmp_path):
    """Otherwise a dataset of a stranger could do anything as the user."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "corpus.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError):
        read(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_dataset_that_changed_since_it_was_listed_is_refused(tmp_path, rows, form):
    """Otherwise a dataset would be built of two versions of its input."""
    source = save(rows, tmp_path / "corpus", form)
    config = DataConfig(source=source)
    opened = open_source(config)
    (piece, *_), *_ = opened.parts(10**9)
    changed = next((tmp_path / "corpus").glob("*[0-9].[ap]*"))
    os.utime(changed, (1, 1))
    assert open_source(config).identity() != opened.identity()
    with pytest.raises(DataError, match="changed while"):
        list(read_piece(piece, config, lambda count: None))


def test_without_the_package_the_extra_is_named():
    """Otherwise a plain installation would answer hf: with a traceback."""
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "from data.config import DataConfig; from data.sources import open_source\n"
        "open_source(DataConfig(source='hf:any/thing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DataError" in done.stderr
    assert "seedbed[huggingface]" in done.stderr
