"""What is written is what is read, and nothing damaged is ever read."""

import json
import shutil

import numpy as np
import pytest

from data.build import build_dataset
from data.config import DataConfig
from data.location import Location
from data.shard_writer import SplitWriter, provenance_row, token_dtype
from data.shards import Dataset
from data.split import Split, shard_table
from seedbed.errors import DataError
from seedbed.files import hash_file
from seedbed.randomness import generator
from seedbed.verified import VerifiedFile


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A dataset of some forty documents, of several shards."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for number in range(40):
        rng = generator(number, "text")
        words = " ".join(f"w{value}é" for value in rng.integers(1000, size=int(rng.integers(20, 200))))
        (source / f"{number:02d}.txt").write_text(words)
    config = DataConfig(source=str(source), vocab_size=400, shard_tokens=4000, holdout_fraction=0.2)
    return build_dataset(config, folder / "dataset"), source


@pytest.fixture
def copied(built, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(built[0], tmp_path / "dataset")


def test_documents_come_back_with_their_text_and_provenance(built):
    """Otherwise what a model trains on could not be traced to a file."""
    path, source = built
    dataset, seen = Dataset.open(path, verify=True), {}
    tokenizer = dataset.tokenizer()
    for name in dataset.splits:
        split = dataset.split(name)
        for number, (row, tokens) in enumerate(split.documents()):
            assert tokens[-1] == dataset.end_of_text_id
            assert dataset.end_of_text_id not in tokens[:-1]
            text = tokenizer.decode(tokens[:-1])
            assert (row["bytes"], row["tokens"]) == (len(text.encode()), len(tokens))
            assert split.lengths()[number].tolist() == [row["tokens"], row["bytes"]]
            again, same = split.document(number)
            assert again == row
            assert np.array_equal(same, tokens)
            seen[row["source"]] = text
        assert split.num_documents == number + 1
        assert split.lengths().sum(axis=0).tolist() == [split.num_tokens, split.utf8_bytes]
    assert seen == {file.name: file.read_text() for file in source.iterdir()}


def test_any_range_is_read_across_shards(built):
    """Otherwise the window at a shard's end would be short, shifted or missing."""
    split = Dataset.open(built[0]).split("train")
    assert split.num_shards >= 3
    everything = np.concatenate([tokens for _, tokens in split.documents()])
    assert everything.dtype == np.int64
    assert np.array_equal(split.tokens(0, split.num_tokens), everything)
    rng = generator(0, "ranges")
    for _ in range(300):
        start, stop = sorted(rng.integers(0, split.num_tokens + 1, size=2).tolist())
        assert np.array_equal(split.tokens(start, stop), everything[start:stop])
    with pytest.raises(IndexError):
        split.tokens(0, split.num_tokens + 1)


def files_of(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def touch_everything(path):
    """Read a dataset as training, inspection and generation do."""
    dataset = Dataset.open(path)
    dataset.tokenizer()
    for name in dataset.splits:
        split = dataset.split(name)
        split.tokens(0, split.num_tokens)
        list(split.documents())


@pytest.mark.parametrize("suffix", [".tokens", ".index", ".documents.jsonl"])
def test_flipped_byte_is_caught_at_the_first_reading(copied, suffix):
    """Otherwise a bad disk would train a model on noise, and nobody would know."""
    victim = copied / "part-00000" / f"train-001{suffix}"
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.write_bytes(raw)
    with pytest.raises(DataError, match=rf"train-001\{suffix} is damaged: bytes 0 to") as raised:
        touch_everything(copied)
    assert "seedbed data build" in raised.value.fix


def test_flipped_byte_in_any_file_is_caught_by_verify(built, tmp_path):
    """Otherwise `verify` would call a damaged dataset whole."""
    for name in files_of(built[0]):
        copy = shutil.copytree(built[0], tmp_path / name.replace("/", "-"))
        raw = bytearray((copy / name).read_bytes())
        if not raw or name == "built_from.json":  # which is a note, not part of the dataset
            continue
        raw[len(raw) // 3] ^= 1
        (copy / name).write_bytes(raw)
        with pytest.raises(DataError, match=name):
            Dataset.open(copy, verify=True)


def test_slices_are_checked_one_by_one_and_once(tmp_path):
    """Otherwise the first batch would wait for a terabyte to be hashed, or every batch would hash again."""
    path = tmp_path / "file"
    path.write_bytes(generator(0, "file").bytes(10_000))
    receipt = hash_file(path, slice_bytes=1000)
    raw = bytearray(path.read_bytes())
    raw[5500] ^= 1
    path.write_bytes(raw)
    file = VerifiedFile(path, receipt, DataError, "build again")
    assert file.read(0, 5000).tobytes() == bytes(raw[:5000])
    assert file.read(6000, 10_000).tobytes() == bytes(raw[6000:])
    for start, stop in ((5999, 6001), (4999, 5001), (0, 10_000)):
        with pytest.raises(DataError, match="bytes 5000 to 5999"):
            file.read(start, stop)
    assert list(file._verified) == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "name", ["part-00000/train-000.tokens", "train.shards.npy", "drops.jsonl", "tokenizer.json"]
)
@pytest.mark.parametrize("damage", ["missing", "longer"])
def test_missing_and_resized_files_are_named_at_opening(copied, name, damage):
    """Otherwise an incomplete copy would fail hours into a run."""
    if damage == "missing":
        (copied / name).unlink()
    else:
        (copied / name).write_bytes((copied / name).read_bytes() + b"x")
    with pytest.raises(DataError, match=name):
        Dataset.open(copied)


def test_altered_manifest_is_refused(copied):
    """Otherwise a hand-edited count would shift every window of a run."""
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["splits"]["train"]["tokens"] -= 1
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="digest"):
        Dataset.open(copied)


def test_newer_version_is_refused_before_anything_else(copied):
    """Otherwise an old Seedbed would misread a new format."""
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["version"] = 3
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"format 3.*reads 2"):
        Dataset.open(copied)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": "other"}'])
def test_what_is_no_dataset_is_refused(tmp_path, content):
    """Otherwise a wrong path would end in a traceback."""
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=str(tmp_path)) as raised:
        Dataset.open(tmp_path)
    assert raised.value.fix


def test_another_tokenizer_in_the_folder_is_noticed(built, copied):
    """Otherwise text would be generated with a vocabulary that the model never saw."""
    dataset = Dataset.open(copied)
    parsed = json.loads((copied / "tokenizer.json").read_text())
    parsed["model"]["merges"].reverse()
    (copied / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        dataset.tokenizer()


def test_unknown_split_names_the_nearest(built):
    """Otherwise `hold-out` would end in a KeyError."""
    with pytest.raises(DataError, match="holdout"):
        Dataset.open(built[0]).split("hold-out")


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_every_id_of_a_vocabulary_fits(tmp_path, vocab_size, dtype):
    """Otherwise the largest ids would wrap around to other tokens."""
    assert token_dtype(vocab_size) == dtype
    (tmp_path / "part-00000").mkdir()
    ids = np.array([0, 1, vocab_size - 1, 0])
    with SplitWriter(tmp_path / "part-00000", vocab_size=vocab_size, **OPTIONS, slice_bytes=4) as writer:
        writer.write([provenance_row("a", "test", "")], np.array([3]), ids, np.array([4]))
    split = Split(Location(tmp_path), "train", table_of(writer), dtype, 0)
    assert split.tokens(0, 4).tolist() == ids.tolist()


OPTIONS = {"part": 0, "split": "train", "shard_tokens": 10}


def table_of(writer):
    return shard_table(writer.rows)


@pytest.mark.parametrize("together", [1, 2, 5])
def test_document_longer_than_a_shard_is_kept_whole(tmp_path, together):
    """Otherwise one long book would be cut, or stop the build, or shards would depend on batches."""
    (tmp_path / "part-00000").mkdir()
    lengths = [4, 51, 4, 4, 4]
    with SplitWriter(tmp_path / "part-00000", vocab_size=300, **OPTIONS) as writer:
        for start in range(0, 5, together):
            batch = np.array(lengths[start : start + together])
            rows = [provenance_row(str(start + number), "test", "") for number in range(len(batch))]
            writer.write(rows, batch, np.repeat(np.arange(len(batch)) + start, batch), np.cumsum(batch))
    split = Split(Location(tmp_path), "train", table_of(writer), "uint16", 0)
    assert [row["tokens"] for row in table_of(writer)] == [4, 51, 8, 4]
    assert [row["id"] for row, _ in split.documents()] == list("01234")
    assert split.tokens(0, 67).tolist() == np.repeat(np.arange(5), lengths).tolist()
    assert split.documents_starting_in(0, 67).tolist() == [0, 4, 55, 59, 63]
    assert split.documents_starting_in(4, 59).tolist() == [4, 55]
    assert split.documents_starting_in(5, 55).tolist() == []
