"""A mixture keeps what was asked for, at every position, and says what cannot be kept."""

import itertools
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_splits import Simulated, numbered_documents, web_lengths, write_split

from data.batches import WindowStream
from data.config import MixtureStage, OrderConfig
from data.mixture import MAX_DENOMINATOR, MixtureStream, check_same_tokenizer, mixed, packed, whole_shares
from data.packing import PackedStream
from data.proportions import Proportions, Stage
from seedbed.errors import ConfigError, DataError

FAR = 10**12


def window_streams(**num_tokens: int) -> dict[str, WindowStream]:
    return {
        name: WindowStream(Simulated(tokens), 16, seed)
        for seed, (name, tokens) in enumerate(num_tokens.items())
    }


def stage(from_tokens: int, **weights: float) -> MixtureStage:
    return MixtureStage(from_tokens=from_tokens, weights=weights)


def check(proportions: Proportions, start: int, count: int) -> None:
    """Counts stay strictly within one of the target, and each source gives its samples in order."""
    sources, indices = proportions.choose(start, count)
    given_so_far = proportions.counts(start)
    assert sum(given_so_far) == start
    for offset, (source, index) in enumerate(zip(sources.tolist(), indices.tolist(), strict=True)):
        for given_, wanted in zip(given_so_far, proportions.target(start + offset), strict=True):
            assert abs(given_ - wanted) < 1
        assert index == given_so_far[source]
        given_so_far[source] += 1
    assert proportions.counts(start + count) == given_so_far


@st.composite
def some_stages(draw):
    num_sources = draw(st.integers(1, 9))
    share = st.one_of(st.integers(0, 4), st.integers(0, 200))
    shares = st.lists(share, min_size=num_sources, max_size=num_sources).filter(any)
    lengths = draw(st.lists(st.integers(1, 1500), max_size=3))
    starts = [0, *itertools.accumulate(lengths)]
    return [Stage(start, tuple(draw(shares))) for start in starts]


@given(some_stages(), st.integers(0, FAR))
@settings(max_examples=60, deadline=None)
def test_counts_stay_within_one_sample_everywhere(stages, far):
    """Otherwise a run's data would drift from what was asked, most of all where stages change."""
    proportions = Proportions(stages)
    check(proportions, 0, stages[-1].start + 300)
    check(proportions, stages[-1].start + far, 60)


@given(some_stages(), st.integers(0, 3000), st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_division_of_a_range_gives_the_same_choices(stages, start, counts):
    """Otherwise ranks would not agree on whose sample comes next."""
    proportions = Proportions(stages)
    whole = proportions.choose(start, sum(counts))
    at, parts = start, []
    for count in counts:
        parts.append(proportions.choose(at, count))
        at += count
    for number, field in enumerate(whole):
        assert np.array_equal(field, np.concatenate([field[:0], *(part[number] for part in parts)]))


def test_many_sources_and_fine_shares_stay_quick_and_exact():
    """Otherwise a mixture of a hundred sources would wait at start, or drift."""
    shares = tuple(range(1, 101))
    proportions = Proportions([Stage(0, shares)])
    for start in (0, 5000, FAR):
        check(proportions, start, 150)
    assert len(proportions._runs) == 1


def test_choices_are_frozen():
    """Otherwise an upgrade would change the data order of runs that are under way."""
    proportions = Proportions([Stage(0, (5, 2, 3)), Stage(25, (1, 1, 4))])
    assert "".join(map(str, proportions.choose(0, 20)[0])) == "02010201020201020102"
    assert "".join(map(str, proportions.choose(20, 20)[0])) == "02012022122022122022"


def test_decimal_weights_are_exact():
    """Otherwise 0.1 would be a binary fraction, and a trillion samples later be off by many."""
    mixture = MixtureStream(
        window_streams(a=5000, b=5000, c=5000), [stage(0, a=0.7, b=0.2, c=0.1), stage(16 * 1001, c=3, a=1)]
    )
    assert mixture.shares == (Stage(0, (7, 2, 1)), Stage(1001, (1, 0, 3)))
    assert mixture.counts(1000) == {"a": 700, "b": 200, "c": 100}
    counts = mixture.counts(FAR)
    assert sum(counts.values()) == FAR
    wanted = {"a": Fraction(7007, 10) + Fraction(FAR - 1001, 4), "b": Fraction(2002, 10)}
    assert all(abs(counts[name] - number) < 1 for name, number in wanted.items())


def test_samples_are_those_of_the_sources_in_their_order():
    """Otherwise some text of a source would be skipped or come twice."""
    streams = window_streams(a=1700, b=900, c=5000)
    mixture = MixtureStream(streams, [stage(0, a=5, b=2, c=3)])
    batch = mixture.batch(37, 200)
    for row, (name, index) in enumerate(mixture.sources(37, 200)):
        alone = streams[name].batch(index, 1)
        for field in ("tokens", "targets", "weights", "documents", "positions"):
            assert np.array_equal(getattr(batch, field)[row], getattr(alone, field)[0])
    assert mixture.batch(37, 0).tokens.shape == (0, 16)


def test_without_weights_sources_count_by_their_tokens():
    """Otherwise a small source would be read many times before a large one is read once."""
    mixture = MixtureStream(window_streams(a=16 * 3000 + 1, b=16 * 1000 + 1, c=16 * 7 + 1))
    assert mixture.num_samples == 4007
    assert mixture.epochs_of(4007) == {"a": 1, "b": 1, "c": 1}


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_shares_are_rounded_as_little_as_stated(numbers):
    """Otherwise a rare source could vanish, or a share be far from what was asked."""
    shares = whole_shares([Fraction(number) for number in numbers])
    assert min(shares) >= 1
    assert sum(shares) <= MAX_DENOMINATOR + len(shares)
    for share, number in zip(shares, numbers, strict=True):
        assert abs(Fraction(share, sum(shares)) - Fraction(number, sum(numbers))) <= Fraction(
            len(shares) + 1, MAX_DENOMINATOR // 2
        )
    smallest = min(range(len(numbers)), key=numbers.__getitem__)
    if numbers[smallest] * 1000 > sum(numbers):
        wanted = Fraction(numbers[smallest], sum(numbers))
        assert abs(Fraction(shares[smallest], sum(shares)) / wanted - 1) < Fraction(1, 50)


def test_too_many_epochs_are_named():
    """Otherwise a small source would be learned by heart without a word."""
    mixture = MixtureStream(window_streams(small=161, large=16_001), [stage(0, small=1, large=1)])
    assert mixture.epochs_of(80) == {"small": 4.0, "large": 0.04}
    assert mixture.epoch_warnings(80) == []
    (warning,) = mixture.epoch_warnings(90)
    assert "small is gone through 4.5 times" in warning


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage(0, a=1, bb=1)], "'bb'.*none of the datasets a, bc"),
        ([stage(0, a=1)], "no weight to bc"),
        ([stage(0, a=1, bc=0)], "weight of bc in the mixture is 0"),
        ([stage(0, a=1, bc=-2)], "weight of bc in the mixture is -2"),
        (
            [MixtureStage.model_construct(from_tokens=0, weights={"a": float("nan"), "bc": 1.0})],
            "of a .* nan",
        ),
        ([stage(16, a=1, bc=1)], "begins at 16 tokens"),
        ([stage(0, a=1, bc=1), stage(0, a=1)], "does not ascend"),
        ([stage(0, a=1, bc=1), stage(3200, a=1), stage(1600, bc=1)], "0, 3,200, 1,600"),
    ],
)
def test_what_cannot_be_mixed_is_refused(stages, message):
    """Otherwise a typing mistake would leave out a source, or fail in the middle of a run."""
    with pytest.raises(ConfigError, match=message) as raised:
        MixtureStream(window_streams(a=500, bc=500), stages)
    assert raised.value.fix


def test_nearest_name_is_offered():
    """Otherwise the user would search for the difference."""
    with pytest.raises(ConfigError) as raised:
        MixtureStream(window_streams(wikipedia=500, code=500), [stage(0, wikpedia=1, code=1)])
    assert "use wikipedia" in raised.value.fix


def dataset_of(split, fingerprint: str = "f" * 64):
    """As much of a dataset as the order looks at."""
    return SimpleNamespace(split=lambda name: split, tokenizer_fingerprint=fingerprint, location="/somewhere")


def test_two_tokenizers_are_refused():
    """Otherwise the same id would mean two different texts in one run."""
    datasets = {"a": dataset_of(Simulated(500), "ab" * 32), "b": dataset_of(Simulated(500), "cd" * 32)}
    with pytest.raises(DataError, match=r"a and b were made by different tokenizers .*abab.*cdcd"):
        check_same_tokenizer(datasets)


def test_the_configuration_makes_the_stream(tmp_path):
    """Otherwise what [order] says would not be what is read."""
    split = write_split(tmp_path, numbered_documents(web_lengths(100, 60)))
    assert isinstance(packed(split, OrderConfig(), 32, 0), WindowStream)
    order = OrderConfig(packing="first-fit-decreasing", within_documents=True)
    stream = packed(split, order, 32, 0)
    assert isinstance(stream, PackedStream)
    assert (stream.method, stream.within_documents) == ("first-fit-decreasing", True)
    assert mixed({"only": stream}, order) is stream
    mixture = mixed({"a": stream, "b": stream}, OrderConfig(weights={"a": 0.9, "b": 0.1}))
    assert isinstance(mixture, MixtureStream)
    assert mixture.shares == (Stage(0, (9, 1)),)
    with pytest.raises(ConfigError, match="none of the datasets only"):
        mixed({"only": stream}, OrderConfig(weights={"other": 1.0}))
