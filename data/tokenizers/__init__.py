"""Text <-> token ids behind one protocol: byte-level BPE, SentencePiece, WordPiece, and other makers' files.

base.py            what every tokenizer does
tokenizer_json.py  those of a tokenizer.json, run by `tokenizers`
sentencepiece.py   those of a .model, run by `sentencepiece`
encoders.py        many texts -> one array of ids, and the check of a fast encoder against the exact one
gigatoken.py       the fast encoder of BPE
word_cache.py      the fast encoder of WordPiece
training.py        training of every kind; wordpiece_training.py has what is special of WordPiece
loading.py         from a file to a tokenizer
"""

from data.tokenizers.base import END_OF_TEXT, Tokenizer
from data.tokenizers.encoders import EncoderMismatch
from data.tokenizers.loading import find_tokenizer, load_tokenizer
from data.tokenizers.training import train_tokenizer

__all__ = [
    "END_OF_TEXT",
    "EncoderMismatch",
    "Tokenizer",
    "find_tokenizer",
    "load_tokenizer",
    "train_tokenizer",
]
