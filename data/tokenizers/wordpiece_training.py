"""Training of BERT's WordPiece, made deterministic.

The trainer of `tokenizers` numbers the pieces inside words (##a, ##b, ...) as it meets them in a hash
table of words, whose order differs from process to process, and these numbers break the ties between
merges. So the text is read first, its characters are counted, and the trainer starts from a fixed list.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TextIO

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

# In the order of Devlin et al. 2018: [PAD] is 0.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"
# Characters that the vocabulary knows at most: the most frequent; a word with another one is [UNK].
MAX_CHARACTERS = 1000


def wordpiece_definition(texts: Iterable[str], vocab_size: int) -> str:
    """The tokenizer.json of an uncased WordPiece of at most `vocab_size` pieces (Schuster and Nakajima 2012).

    Texts wait in a temporary file between the two readings.
    """
    backend = _untrained()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
            file.write(json.dumps(text) + "\n")
        by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
        # Most have two pieces, a and ##a: half of a small vocabulary is left for words.
        num_known = min(MAX_CHARACTERS, vocab_size // 4)
        rare = {ord(character): " " for character in by_frequency[num_known:]}
        inside = _inside_words(backend, by_frequency[:num_known])
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[*SPECIAL_TOKENS, *(PREFIX + character for character in inside)],
            continuing_subword_prefix=PREFIX,
            show_progress=False,
        )
        backend.train_from_iterator(_texts_in(file, rare), trainer)
    definition = json.loads(backend.to_str())
    definition["added_tokens"] = definition["added_tokens"][: len(SPECIAL_TOKENS)]
    return json.dumps(definition, ensure_ascii=False, indent=2)


def _untrained() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocab={}, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=PREFIX)
    ids = {token: id for id, token in enumerate(SPECIAL_TOKENS)}
    backend.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return backend


def _inside_words(backend: tokenizers.Tokenizer, characters: Iterable[str]) -> list[str]:
    """What the normaliser makes of `characters`, as far as it can follow another letter in a word; sorted."""
    normalised = set("".join(map(backend.normalizer.normalize_str, characters)))
    return sorted(
        character
        for character in normalised
        if len(pieces := backend.pre_tokenizer.pre_tokenize_str("a" + character)) == 1
        and pieces[0][0] == "a" + character
    )


def _texts_in(file: TextIO, rare: dict[int, str]) -> Iterator[str]:
    file.seek(0)
    for line in file:
        yield json.loads(line).translate(rare)
