"""Samples of examples: whole, isolated, a function of the position; long ones by the policy, and counted."""

import numpy as np
import pytest
from token_splits import END, write_examples

from data.batches import WindowStream
from data.examples.groups import GroupStream
from data.examples.supervised import SupervisedStream
from data.examples.table import ExampleTable, is_examples
from data.mixture import MixtureStream
from data.order_hash import sample_digests
from seedbed.errors import DataError, TooLittleData
from seedbed.randomness import generator


def lengths(count, most=30):
    drawn = generator(0, "sizes").integers(3, most, size=(count, 2))
    return [(int(a), int(b)) for a, b in drawn]


def table(folder, sizes, **more):
    """Examples of (prompt, answer) tokens, every token of which has an id of its own."""
    return ExampleTable(write_examples(folder, sizes, **more))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return table(tmp_path_factory.mktemp("examples"), lengths(200))


def answers_of(batch):
    """[(token, target, position)] of what weighs, by the document that it is in."""
    for row in range(len(batch)):
        for number in np.unique(batch.documents[row]):
            here = batch.documents[row] == number
            yield (
                batch.tokens[row][here],
                batch.targets[row][here],
                batch.weights[row][here],
                batch.positions[row][here],
            )


@pytest.mark.parametrize("pack", [True, False])
def test_an_epoch_has_every_example_whole_and_once(examples, pack):
    """Otherwise some examples would be learned twice, cut, or never."""
    stream = SupervisedStream(examples, 64, 0, pack=pack)
    found = {}
    for tokens, targets, weights, positions in answers_of(stream.batch(0, stream.num_samples)):
        if not weights.any():
            continue
        assert positions.tolist() == list(range(len(tokens)))
        assert (tokens[1:] == targets[:-1]).all()
        found[int(tokens[0])] = (len(tokens) + 1, int(weights.sum()))
    expected = {
        int(examples.tokens(s)[0]): (int(examples.lengths[s]), int(np.diff(examples.spans_of(s)).sum()))
        for s in range(examples.num_sequences)
    }
    assert found == expected
    if pack:
        assert stream.filled > 0.9
        assert stream.num_samples < 0.6 * 200


def test_a_batch_is_a_function_of_the_position(examples):
    """A resume would read other data than the run that it goes on from."""
    whole = SupervisedStream(examples, 64, 3)
    n = whole.num_samples
    long = whole.batch(0, 3 * n)
    again = SupervisedStream(examples, 64, 3)
    for position in (2 * n - 3, 7, n - 1):
        part = again.batch(position, 5)
        assert np.array_equal(sample_digests(part), sample_digests(long)[position : position + 5])
    epochs = [sorted(sample_digests(long)[e * n : (e + 1) * n].tolist()) for e in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert not np.array_equal(sample_digests(long)[:n], sample_digests(long)[n : 2 * n])


def test_padding_weighs_nothing_though_it_is_the_end_of_text(tmp_path):
    """With pad = end-of-text, masking by id either trains padding or never learns to stop."""
    stream = SupervisedStream(table(tmp_path, [(3, 4), (5, 2)], ends=True), 16, 0, pack=False)
    batch = stream.batch(0, 2)
    for tokens, targets, weights in zip(batch.tokens, batch.targets, batch.weights, strict=True):
        counted = targets[weights > 0]
        assert counted[-1] == END
        assert (counted == END).sum() == 1
        assert (tokens[np.flatnonzero(weights)[-1] + 1 :] == END).all()


def test_examples_longer_than_the_context_go_by_the_policy(tmp_path):
    """Silently cut answers teach a model to stop in the middle; silently dropped ones are missing."""
    sizes = [(4, 4), (4, 30), (40, 4), (2, 15)]
    examples = table(tmp_path, sizes)
    dropped = SupervisedStream(examples, 16, 0)
    assert (dropped.num_examples, dropped.fitting.num_too_long, dropped.fitting.num_prompts_too_long) == (
        2,
        1,
        1,
    )
    assert (
        "1 longer than the context are left out, 1 are left out, since their prompt"
        in dropped.fitting.described()
    )
    cut = SupervisedStream(examples, 16, 0, too_long="truncate", pack=False)
    assert cut.num_examples == 3
    assert sorted(cut.batch(0, 3).weights.sum(1).tolist()) == [4, 13, 15]
    with pytest.raises(DataError, match=r"2 of 4 sequences .* the longest has 44"):
        SupervisedStream(examples, 16, 0, too_long="fail")
    with pytest.raises(TooLittleData, match="no example that fits"):
        SupervisedStream(examples, 2, 0)


def test_weights_of_samples_and_of_whole_examples(tmp_path):
    examples = table(tmp_path, [(3, 4), (3, 8)], sample_weights=[2.0, 0.5])
    by_token = SupervisedStream(examples, 16, 0, pack=False, shuffle=False).batch(0, 2)
    assert by_token.weights.sum(1).tolist() == [8.0, 4.0]
    by_example = SupervisedStream(examples, 16, 0, pack=False, shuffle=False, per_example=True).batch(0, 2)
    np.testing.assert_allclose(by_example.weights.sum(1), [2.0, 0.5], rtol=1e-6)


def test_examples_mix_with_running_text(examples, tmp_path):
    """Fine-tuning forgets without some of what came before."""
    from token_splits import numbered_documents, write_split

    text = write_split(tmp_path / "text", numbered_documents([50] * 40))
    streams = {
        "chat": SupervisedStream(examples, 64, 0),
        "text": WindowStream(text, 64, 0, within_documents=True),
    }
    mixture = MixtureStream(streams)
    batch = mixture.batch(0, 40)
    of_text = [row for row, (name, _) in enumerate(mixture.sources(0, 40)) if name == "text"]
    assert of_text
    assert all(batch.weights[row].mean() > 0.9 for row in of_text)
    assert not is_examples_split(text)


def is_examples_split(split):
    try:
        ExampleTable(split)
    except DataError:
        return False
    return True


def test_running_text_is_not_taken_for_examples(tmp_path):
    from token_splits import numbered_documents, write_split

    with pytest.raises(DataError, match="holds documents, not examples"):
        ExampleTable(write_split(tmp_path, numbered_documents([9, 9])))
    assert callable(is_examples)


def test_candidates_of_a_prompt_come_together(tmp_path):
    """A comparison whose sides are in different batches is none."""
    examples = table(tmp_path, [(4, 3), (4, 6), (5, 2), (5, 9), (5, 4)], groups=[2, 3], margins=[1.5, 0])
    stream = GroupStream(examples, 32, 0)
    assert (stream.num_samples, stream.num_candidates) == (2, 3)
    batch = stream.batch(0, 2)
    two = int(np.flatnonzero(batch.lengths[:, 2] == 0)[0])
    assert batch.ranks[two].tolist() == [0, 1, -1]
    assert batch.margins[two] == 1.5
    assert batch.lengths[two].tolist() == [7, 10, 0]
    assert batch.lengths[1 - two].tolist() == [7, 14, 9]
    assert batch.trained.sum(2)[two].tolist() == [3, 6, 0]


def test_a_pair_that_truncation_makes_equal_is_left_out(tmp_path):
    """It would be learned that a text is better than itself."""
    rows = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 9], [1, 2, 3, 4], [1, 2, 3, 5]]
    split = write_examples(tmp_path, [(2, 6), (2, 5), (2, 2), (2, 2)], groups=[2, 2], tokens=rows)
    stream = GroupStream(ExampleTable(split), 6, 0, too_long="truncate")
    assert (stream.num_samples, stream.num_cut_alike) == (1, 1)
    assert "the same when truncated" in stream.described()


def test_a_mismatched_answer_is_that_of_another_example(tmp_path):
    """The estimate of how far the policy has moved would be taken on the very answers that move it."""
    examples = table(tmp_path, [(4, 3), (4, 6), (5, 2), (5, 9)], groups=[2, 2])
    stream = GroupStream(examples, 32, 0, mismatched=True)
    assert stream.num_samples == 4
    for number in range(4):
        batch = stream.of([number])
        own, other = (set(batch.tokens[0, k][batch.trained[0, k]].tolist()) for k in (0, 1))
        example = number // 2
        theirs = {int(t) for s in (2 - 2 * example, 3 - 2 * example) for t in examples.tokens(s)}
        assert not own & other
        assert other <= theirs
        begin = int(examples.spans_of(number)[0, 0])
        assert batch.tokens[0, 0, :begin].tolist() == batch.tokens[0, 1, :begin].tolist()
