"""Near-copies are found, and never lie on both sides of the split."""

import re
import subprocess
import sys
import sysconfig
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.build import build_dataset
from data.config import DataConfig
from data.minhash import MinHasher
from data.near_duplicates import (
    band_keys,
    candidate_probability,
    cluster_duplicates,
    group_near_duplicates,
    recall_threshold,
)
from data.shards import Dataset
from data.splits import MAX_GROUP_SHARE_OF_HOLDOUT, split_groups
from seedbed.errors import DataError
from seedbed.randomness import generator

DEDUP = {"bands": 14, "rows": 8, "threshold": 0.72}
HOLDOUT = {"bands": 56, "rows": 2, "threshold": recall_threshold(0.5)}


def signature_of(text):
    return MinHasher().signatures([text])[0]


def shingles(text):
    """Word 5-grams, by the book."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def jaccard(one, other):
    return len(one & other) / len(one | other)


def words(rng, count):
    return [f"w{number}" for number in rng.integers(10_000, size=count)]


def pair(rng, shared, own):
    """Two texts that share their first `shared` words and then have `own` words each."""
    start = words(rng, shared)
    return [" ".join(start + words(rng, own)) for _ in range(2)]


@pytest.mark.parametrize("num_words", [100, 2000, 60_000])
def test_signatures_estimate_jaccard_without_bias(num_words):
    """Otherwise a threshold of 0.5 would mean something else than a similarity of 0.5."""
    rng, hasher = generator(1, "test", num_words), MinHasher()
    count = 200 if num_words < 10_000 else 10
    texts = [
        text
        for share in rng.uniform(0.2, 0.95, size=count)
        for text in pair(rng, int(num_words * share), int(num_words * (1 - share)))
    ]
    exact = np.array(
        [jaccard(shingles(a), shingles(b)) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    )
    signatures = hasher.signatures(texts)
    errors = (signatures[::2] == signatures[1::2]).mean(axis=1) - exact
    in_standard_errors = errors / np.sqrt(exact * (1 - exact) / hasher.num_permutations)
    assert abs(in_standard_errors.mean()) < 4 / np.sqrt(count)
    assert abs(in_standard_errors.std() - 1) < 4 / np.sqrt(2 * count)


def test_bands_meet_as_often_as_the_formula_says():
    """Otherwise the orders would not be independent, and the filter's 0.72 another number."""
    rng, hasher = generator(6, "test"), MinHasher()
    texts = [text for _ in range(1000) for text in pair(rng, 84, 10)]
    keys = band_keys(hasher.signatures(texts))
    met = (keys[:, ::2] == keys[:, 1::2]).any(axis=0).mean()
    expected = candidate_probability(80 / 100, 14, 8)
    assert abs(met - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000)


@given(st.lists(st.text(max_size=60), max_size=8))
def test_a_signature_is_the_texts_own(texts):
    """Otherwise what is a near-copy would depend on the batch that a document came in."""
    together = MinHasher().signatures(texts)
    assert together.shape == (len(texts), 112)
    assert together.dtype == np.uint32
    for text, signature in zip(texts, together, strict=True):
        assert (signature_of(text) == signature).all()


def test_long_texts_next_to_short_ones():
    """Otherwise blocks and pages of arrays would show in the signatures."""
    rng = generator(7, "test")
    texts = [" ".join(words(rng, count)) for count in (3, 50_000, 1, 7, 20_000, 9_000, 5)]
    texts.insert(2, "...")
    together = MinHasher().signatures(texts)
    assert all((signature_of(text) == row).all() for text, row in zip(texts, together, strict=True))
    backwards = MinHasher().signatures(texts[::-1])
    assert (backwards[::-1] == together).all()


@pytest.mark.parametrize("first", [0x4E00, 0x0E01, 0x3042])
def test_scripts_without_spaces_have_near_copies_too(first):
    """Otherwise a Chinese, Thai or Japanese page would be one word, and never like another."""
    letters = generator(8, "test", first).integers(40, size=2000) + first
    text = "".join(map(chr, letters))
    edited = text[:700] + chr(first) * 3 + text[700:]
    agreement = (signature_of(text) == signature_of(edited)).mean()
    assert agreement > 0.9
    other = "".join(map(chr, generator(9, "test", first).integers(40, size=2000) + first))
    assert (signature_of(text) == MinHasher().signatures([other])[0]).mean() < 0.1


def test_signatures_are_the_same_in_every_process():
    """Otherwise two machines would split the same corpus differently."""
    text = "the quick brown fox jumps over the lazy dog again and again"
    code = f"from data.minhash import MinHasher; print(MinHasher().signatures([{text!r}])[0].tolist())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
        ).stdout
        for env in ({"PYTHONHASHSEED": "1", "PYTHONPATH": "."}, {"PYTHONHASHSEED": "2", "PYTHONPATH": "."})
    }
    assert outputs == {f"{signature_of(text).tolist()}\n"}


def test_signatures_are_the_same_on_every_machine_and_in_every_release():
    """Otherwise an upgrade would move documents between training and the holdout, unseen."""
    signature = signature_of("The quick brown fox — jumps over 13 lazy dogs, 北京")
    assert signature[:4].tolist() == [571258089, 240933949, 430242501, 473069749]


@pytest.mark.parametrize("text", ["", "one", "one two three four", "...!?", "一二三四"])
def test_short_texts_have_signatures(text):
    """Otherwise a corpus of one-line documents would crash, or count as copies of one another."""
    assert signature_of(text).shape == (112,)
    assert (signature_of(text) == signature_of(text)).all()
    assert (signature_of(text) == signature_of("another short text")).mean() < 0.1


def test_holdout_bands_miss_no_pair_at_the_threshold():
    """Otherwise near-copies of training text would be in the holdout, and the loss a flattering one."""
    rng, hasher = generator(2, "test"), MinHasher()
    texts = [text for _ in range(400) for text in pair(rng, 210, 100)]
    assert (
        min(jaccard(shingles(a), shingles(b)) for a, b in zip(texts[::2], texts[1::2], strict=True)) > 0.495
    )
    groups = group_near_duplicates(hasher.signatures(texts), **HOLDOUT)
    assert (groups[::2] == groups[1::2]).mean() >= 0.995
    assert len(np.unique(groups)) >= 400, "pairs that share nothing were joined"
    assert candidate_probability(0.5, 56, 2) > 1 - 1e-6
    assert candidate_probability(0.5, 28, 4) < 0.85


def test_dedup_bands_catch_copies_and_leave_others():
    """Otherwise the same index could not serve a filter, which must not drop what is merely alike."""
    rng, hasher = generator(3, "test"), MinHasher()
    near = [text for _ in range(100) for text in pair(rng, 400, 10)]
    far = [text for _ in range(100) for text in pair(rng, 200, 100)]
    groups = group_near_duplicates(hasher.signatures(near + far), **DEDUP)
    assert (groups[:200:2] == groups[1:200:2]).mean() > 0.98
    assert (groups[200::2] == groups[201::2]).mean() < 0.05


def test_clusters_are_what_shared_bands_connect():
    """Otherwise a copy would be kept, or a text dropped for a stranger."""
    rng = generator(10, "test")
    signatures = rng.integers(8, size=(300, 12), dtype=np.uint32)
    labels = np.arange(300)
    for band in range(3):
        for one, other in combinations(range(300), 2):
            rows = slice(4 * band, 4 * band + 4)
            if (signatures[one, rows] == signatures[other, rows]).all():
                low, high = sorted((labels[one], labels[other]))
                labels[labels == high] = low
    assert 1 < len(np.unique(labels)) < 300
    assert (cluster_duplicates(band_keys(signatures, bands=3, rows=4)) == labels).all()
    parts = np.split(signatures, [0, 100, 101, 300])
    assert (cluster_duplicates([band_keys(part, bands=3, rows=4) for part in parts]) == labels).all()


def test_clusters_of_planted_copies():
    """Otherwise the filter would not do what datatrove's does: drop all but the first of a family."""
    rng = generator(11, "test")
    texts = []
    for _ in range(100):
        own = words(rng, 400)
        texts += [" ".join(own), " ".join([*own[:200], "changed", *own[201:]]), " ".join(words(rng, 400))]
    labels = cluster_duplicates(band_keys(MinHasher().signatures(texts)))
    expected = np.arange(300)
    expected[1::3] = expected[::3]
    assert (labels == expected).all()


def test_no_documents_have_no_clusters():
    """Otherwise a part that lost everything to the filters would stop the build."""
    signatures = MinHasher().signatures([])
    assert cluster_duplicates([]).tolist() == []
    assert cluster_duplicates([band_keys(signatures), band_keys(signatures)]).tolist() == []
    assert group_near_duplicates(signatures, **HOLDOUT).tolist() == []


def test_groups_are_transitive_and_named_by_their_first_member():
    """Otherwise a chain of small edits would straddle the split."""
    rng, hasher = generator(4, "test"), MinHasher()
    base = words(rng, 600)
    chain = [" ".join(base[start : start + 300]) for start in range(0, 301, 50)]
    other = " ".join(words(rng, 300))
    groups = group_near_duplicates(hasher.signatures([other, *chain]), **HOLDOUT)
    assert groups.tolist() == [0] + [1] * len(chain)


def test_boilerplate_costs_linear_time():
    """Otherwise ten thousand files under one licence would take hours to compare."""
    rng = generator(5, "test")
    licence = words(rng, 60)
    signatures = np.stack([signature_of(" ".join(licence + words(rng, 140))) for _ in range(2000)])
    started = time.perf_counter()
    groups = group_near_duplicates(signatures, **HOLDOUT)
    assert time.perf_counter() - started < 20
    assert len(np.unique(groups)) > 1800


def test_encodings_split_has_no_near_copy_on_both_sides(tmp_path):
    """Otherwise validation on a folder of siblings would measure memory; checked exactly, pair by pair."""
    source = Path(sysconfig.get_path("stdlib")) / "encodings"
    config = DataConfig(source=str(source), pattern="*.py", holdout_fraction=0.2, vocab_size=512)
    dataset = Dataset.open(build_dataset(config, tmp_path / "out"))
    sides = {
        name: {
            row["id"]: shingles((source / row["id"]).read_text())
            for row, _ in dataset.split(name).documents()
        }
        for name in dataset.splits
    }
    assert len(sides["holdout"]) >= 3
    assert len(sides["train"]) >= 60
    worst = max(
        (jaccard(held, trained), one, other)
        for one, held in sides["holdout"].items()
        for other, trained in sides["train"].items()
    )
    assert worst[0] < 0.5, worst
    everything = list((sides["train"] | sides["holdout"]).values())
    pairs = sum(jaccard(a, b) >= 0.5 for n, a in enumerate(everything) for b in everything[:n])
    assert pairs > 100, "this folder no longer has near-copies, so the test shows nothing"


def hashes(count):
    return [generator(0, "test", number).bytes(32) for number in range(count)]


def test_split_hangs_on_content_alone():
    """Otherwise adding or renaming a file would move others from the holdout into training."""
    digests, sizes = hashes(2000), np.full(2000, 100)
    held = split_groups(digests, sizes, np.arange(2000), 0.05, seed=0).held_out
    assert 60 < held.sum() < 140
    backwards = split_groups(digests[::-1], sizes, np.arange(2000), 0.05, seed=0).held_out
    assert (backwards[::-1] == held).all()
    fewer = split_groups(digests[:1500], sizes[:1500], np.arange(1500), 0.05, seed=0).held_out
    assert (fewer == held[:1500]).all()
    assert (split_groups(digests, sizes, np.arange(2000), 0.05, seed=1).held_out != held).any()


def test_groups_go_whole_and_large_ones_train():
    """Otherwise one family of copies could be the whole holdout, or lie on both sides."""
    digests, sizes = hashes(1000), np.full(1000, 100)
    groups = np.arange(1000) // 5 * 5
    groups[:300] = 0
    for seed in range(20):
        split = split_groups(digests, sizes, groups, 0.2, seed)
        assert not split.held_out[:300].any()
        assert all(len(set(split.held_out[start : start + 5])) == 1 for start in range(300, 1000, 5))
        assert split.held_out.any()
    assert split.counts == {"groups": 141, "documents": 1000, "largest": 300, "too_large_for_holdout": 1}
    assert MAX_GROUP_SHARE_OF_HOLDOUT * 0.2 * 100_000 < 300 * 100


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5])
def test_neither_side_is_ever_empty(count, fraction):
    """Otherwise a small corpus would train without validation, or validate without training."""
    for seed in range(50):
        sizes = generator(seed, "sizes").integers(1, 1000, size=count)
        held = split_groups(hashes(count), sizes, np.arange(count), fraction, seed).held_out
        assert 0 < held.sum() < count


def test_copies_of_one_text_cannot_be_split():
    """Otherwise the holdout would be a copy of the training text."""
    with pytest.raises(DataError, match="too few documents"):
        split_groups(hashes(3), np.full(3, 10), np.zeros(3, dtype=np.int64), 0.5, 0)
