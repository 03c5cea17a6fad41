"""An audit of BERT samples: what is selected, what replaces it, and whether B truly is the next sentence."""

import numpy as np
import pytest
from token_splits import numbered_documents, web_lengths, write_split

from data.bert import BertStream
from data.bert_masking import Vocabulary
from data.tokenizers import train_tokenizer
from seedbed.errors import DataError

PAD, UNK, CLS, SEP, MASK, NUM_SPECIAL = 0, 1, 2, 3, 4, 5
SHIFT = 10
VOCAB_SIZE = 60_000
CONTEXT = 96
NUM_SAMPLES = 2000


def vocabulary() -> Vocabulary:
    """Of ids that number a corpus: every third goes on with a word, every 13th ends a sentence."""
    ids = np.arange(VOCAB_SIZE)
    is_ordinary = ids >= NUM_SPECIAL
    ends_sentence = is_ordinary & (ids % 13 == 0)
    continues = is_ordinary & (ids % 3 == 0) & ~ends_sentence
    return Vocabulary(CLS, SEP, MASK, PAD, np.flatnonzero(is_ordinary), is_ordinary, continues, ends_sentence)


def documents_of(lengths) -> list[list[int]]:
    """Token i of the corpus has the id i + 1 + SHIFT, but for the ends."""
    return [[token + SHIFT for token in document] for document in numbered_documents(lengths)]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    lengths = [length for length in web_lengths(400, 120) if length > 4]
    return write_split(tmp_path_factory.mktemp("bert"), documents_of(lengths), shard_tokens=9000, end=SEP)


@pytest.fixture(scope="module", params=[False, True], ids=["pieces", "words"])
def audited(request, split):
    """A stream and many of its samples."""
    stream = BertStream(split, vocabulary(), CONTEXT, 0, whole_word=request.param)
    return stream, stream.batch(0, NUM_SAMPLES)


def close(count: int, total: int, share: float) -> bool:
    """Whether `count` of `total` is within 4.5 standard deviations of a binomial of `share`."""
    return abs(count - share * total) < 4.5 * np.sqrt(total * share * (1 - share))


def originals(batch) -> np.ndarray:
    return np.where(batch.weights > 0, batch.labels, batch.tokens)


def halves(batch, row: int) -> tuple[np.ndarray, np.ndarray]:
    """A and B of one sample, unmasked."""
    tokens = originals(batch)[row][batch.valid[row]]
    separators = np.flatnonzero(tokens == SEP)
    assert tokens[0] == CLS
    assert len(separators) == 2
    assert separators[1] == len(tokens) - 1
    segments = batch.segments[row]
    assert segments.sum() == separators[1] - separators[0]
    assert (segments[separators[0] + 1 : len(tokens)] == 1).all()
    return tokens[1 : separators[0]], tokens[separators[0] + 1 : -1]


def test_shape_and_padding(audited):
    """Otherwise the model would be shown padding as text, or text as padding."""
    _, batch = audited
    assert len(batch) == NUM_SAMPLES
    for field in (batch.tokens, batch.segments, batch.valid, batch.labels, batch.weights):
        assert field.shape == (NUM_SAMPLES, CONTEXT)
    assert np.array_equal(batch.valid, batch.tokens != PAD)
    assert (np.diff(batch.valid.astype(int), axis=1) <= 0).all()
    assert not batch.weights[~batch.valid].any()
    assert not batch.labels[batch.weights == 0].any()
    assert batch.valid.mean() > 0.5


def test_next_sentences_are_true_and_others_are_of_other_documents(audited, split):
    """Otherwise the label would lie, as it does where B of a lone document is taken from itself."""
    _, batch = audited
    starts = split.documents_starting_in(0, split.num_tokens)
    for row in range(NUM_SAMPLES):
        first, second = (half - SHIFT - 1 for half in halves(batch, row))
        for half in (first, second):
            assert len(half) > 0
            # A stretch of running text: only an end of a document would interrupt the numbers.
            assert np.array_equal(half, half[0] + np.arange(len(half)))
            within = np.searchsorted(starts, [half[0], half[-1]], "right")
            assert within[0] == within[1]
        of_first, of_second = np.searchsorted(starts, [first[0], second[0]], "right")
        if batch.next_sentence[row]:
            assert second[0] == first[-1] + 1
            assert of_first == of_second
        else:
            assert of_first != of_second
    assert close(int(batch.next_sentence.sum()), NUM_SAMPLES, 0.5)


def test_lengths_do_not_give_the_label_away(audited):
    """Otherwise a model could judge the next sentence by counting."""
    _, batch = audited
    lengths = (batch.segments == 1).sum(axis=1)
    is_next = batch.next_sentence == 1
    assert abs(lengths[is_next].mean() - lengths[~is_next].mean()) < 0.1 * lengths.mean()


def test_halves_end_with_sentences_and_begin_with_words(audited):
    """Otherwise A would stop, and B begin, in the middle of a word."""
    stream, batch = audited
    words, num_sentences = stream.vocabulary, 0
    for row in range(500):
        first, second = halves(batch, row)
        if len(first) + len(second) > 4:
            assert not words.continues[first[0]]
            assert not words.continues[second[0]]
        num_sentences += bool(words.ends_sentence[first[-1]])
    assert num_sentences > 300


def test_fifteen_percent_are_selected(audited):
    """Otherwise the objective would be another than the one that is published."""
    stream, batch = audited
    candidates = stream.vocabulary.is_ordinary[originals(batch)]
    selected = batch.weights > 0
    assert not (selected & ~candidates).any()
    assert close(int(selected.sum()), int(candidates.sum()), 0.15)
    per_sample = selected.sum(axis=1) - 0.15 * candidates.sum(axis=1)
    longest_word = 2 if stream.whole_word else 1
    assert abs(per_sample).max() <= longest_word
    # No place in a sample is preferred: not its beginning, not its end, not long words.
    for place in (1, 2, 10, 30):
        here = candidates[:, place]
        assert close(int(selected[here, place].sum()), int(here.sum()), 0.15)
    continuing = stream.vocabulary.continues[originals(batch)] & candidates
    assert close(int(selected[continuing].sum()), int(continuing.sum()), 0.15)


def test_eighty_ten_ten(audited):
    """Otherwise fine-tuning, which sees no [MASK], would meet another model."""
    stream, batch = audited
    selected = batch.weights > 0
    hidden = selected & (batch.tokens == MASK)
    kept = selected & (batch.tokens == batch.labels)
    replaced = selected & ~hidden & ~kept
    assert stream.vocabulary.is_ordinary[batch.tokens[replaced]].all()
    # Pieces of a word share its fate, so that their number varies as if there were fewer of them.
    units = selected & ~stream.vocabulary.continues[batch.labels] if stream.whole_word else selected
    for fate, share in ((hidden, 0.8), (replaced, 0.1), (kept, 0.1)):
        assert close(int((fate & units).sum()), int(units.sum()), share)
    unselected = ~selected & batch.valid
    assert np.array_equal(batch.tokens[unselected], originals(batch)[unselected])
    # Spread over the vocabulary: the replacing ids, not only their number, are random.
    drawn = np.histogram(batch.tokens[replaced], bins=10, range=(NUM_SPECIAL, VOCAB_SIZE))[0]
    assert all(close(int(count), int(drawn.sum()), 0.1) for count in drawn)


def test_words_are_selected_and_masked_whole(split):
    """Otherwise half a word would stand beside its own mask and give it away."""
    words = vocabulary()
    batch = BertStream(split, words, CONTEXT, 3, whole_word=True).batch(0, 1000)
    text, selected = originals(batch), batch.weights > 0
    goes_on = words.continues[text[:, 1:]] & words.is_ordinary[text[:, :-1]] & batch.valid[:, 1:]
    assert np.array_equal(selected[:, 1:][goes_on], selected[:, :-1][goes_on])
    both = goes_on & selected[:, 1:]
    hidden, kept = batch.tokens == MASK, batch.tokens == text
    for fate in (hidden, kept):
        assert np.array_equal(fate[:, 1:][both], fate[:, :-1][both])
    assert both.sum() > 500


def test_masks_are_dynamic_and_reproducible(split):
    """Otherwise every epoch would ask for the same pieces, or a resumed run for others."""
    stream = BertStream(split, vocabulary(), CONTEXT, 5)
    whole = stream.batch(40, 30)
    parts = [BertStream(split, vocabulary(), CONTEXT, 5).batch(start, 10) for start in (40, 50, 60)]
    for name in ("tokens", "segments", "valid", "labels", "weights", "next_sentence"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    straight = BertStream(split, vocabulary(), CONTEXT, 5, shuffle=False)
    epochs = [straight.batch(epoch * straight.num_samples, 20) for epoch in range(2)]
    assert all((epochs[0].weights[row] != epochs[1].weights[row]).any() for row in range(20))
    other_seed = BertStream(split, vocabulary(), CONTEXT, 6, shuffle=False).batch(0, 20)
    assert (other_seed.weights != epochs[0].weights).any()


@pytest.mark.parametrize("lengths", [[3, 3], [400, 3], [3, 400], [2, 2, 2, 2, 2, 2], [1, 500, 1]])
def test_few_and_short_documents(tmp_path, lengths):
    """Otherwise a small or lopsided corpus would fail, or take B from A's own document."""
    split = write_split(tmp_path, documents_of(lengths), end=SEP)
    stops = np.cumsum(lengths)
    stream = BertStream(split, vocabulary(), 16, 0)
    for position in range(60):
        pair = stream.pair(position)
        of_first, of_second = np.searchsorted(stops, [pair.first[0], pair.second[0]], "right")
        assert pair.is_next == (of_first == of_second)
        assert pair.second[1] - pair.second[0] + pair.first[1] - pair.first[0] <= 16 - 3
    assert stream.batch(0, 60).valid[:, :3].all()


def test_a_single_document_is_refused(tmp_path):
    """Otherwise there would be no other document, and every label would be a lie."""
    with pytest.raises(DataError, match="train split has 1 document"):
        BertStream(write_split(tmp_path, documents_of([500]), end=SEP), vocabulary(), 64, 0)


def test_vocabulary_is_that_of_the_tokenizer():
    """Otherwise [SEP] could be masked, or "##ing" begin a word."""
    texts = ["walking talking, sleeping. dreaming! really? yes"] * 50
    tokenizer = train_tokenizer(iter(texts), 300, "wordpiece")
    words = Vocabulary.of(tokenizer)
    names = ("[CLS]", "[SEP]", "[MASK]", "[PAD]")
    assert [words.cls_id, words.sep_id, words.mask_id, words.pad_id] == [
        tokenizer.special_ids[name] for name in names
    ]
    assert not words.is_ordinary[list(tokenizer.special_ids.values())].any()
    assert words.is_ordinary.sum() == tokenizer.vocab_size - len(tokenizer.special_ids)
    ids = tokenizer.encode("walking sleeping. yes! no")
    pieces = [tokenizer.decode([id]) for id in ids]
    assert [bool(words.ends_sentence[id]) for id in ids] == [piece in (".", "!", "?") for piece in pieces]
    for word in ("walkz", "really"):
        first, *rest = tokenizer.encode(word)
        assert not words.continues[first]
        assert words.continues[rest].all()
    with pytest.raises(DataError, match="its tokenizer is a byte-bpe") as raised:
        Vocabulary.of(train_tokenizer(iter(texts), 300))
    assert "wordpiece" in raised.value.fix


def test_sentence_order_swaps_half_of_the_pairs(split):
    """Otherwise ALBERT's task would be another one: B must be what follows A, or what precedes it."""
    stream = BertStream(split, vocabulary(), CONTEXT, 0, pairs="sentence_order")
    pairs = [stream.pair(position) for position in range(NUM_SAMPLES)]
    assert close(sum(pair.is_next for pair in pairs), NUM_SAMPLES, 0.5)
    for pair in pairs:
        early, late = (pair.first, pair.second) if pair.is_next else (pair.second, pair.first)
        assert early[1] == late[0]


def test_without_pairs_a_sample_is_one_stretch(split):
    """Otherwise RoBERTa's samples would end in text of another document."""
    stream = BertStream(split, vocabulary(), CONTEXT, 0, pairs="none")
    batch = stream.batch(0, 300)
    assert not batch.segments.any()
    assert not batch.pair_weights.any()
    for row in range(300):
        text = originals(batch)[row][batch.valid[row]]
        assert text[0] == CLS
        assert np.flatnonzero(text == SEP).tolist() == [len(text) - 1]
        assert (np.diff(text[1:-1]) == 1).all()
