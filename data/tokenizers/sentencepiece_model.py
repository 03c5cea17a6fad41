"""What a SentencePiece .model says of itself that the library does not tell: its kind and its normaliser.

The file is a protocol buffer; field numbers are those of sentencepiece_model.proto in google/sentencepiece.
"""

from dataclasses import dataclass
from typing import Any

_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
_MODEL_TYPE, _SPACE_IS_SUFFIX, _BYTE_FALLBACK = 3, 24, 35
_CHARACTER_MAP, _ADD_SPACE, _JOIN_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5
_UNIGRAM = 1
_KINDS = {_UNIGRAM: "unigram", 2: "sentencepiece-bpe", 3: "sentencepiece-word", 4: "sentencepiece-char"}

Fields = dict[int, int | bytes]


@dataclass(frozen=True)
class ModelSpec:
    """How a model splits text (`kind`) and what it does to it before."""

    kind: str
    byte_fallback: bool
    space_is_suffix: bool
    character_map: bytes
    adds_space: bool
    joins_spaces: bool
    escapes_spaces: bool
    restores_text: bool

    @property
    def lossy_because(self) -> str:
        """Why some text does not come back as it was; empty if all does."""
        reasons = {
            "it normalises text": bool(self.character_map),
            "it puts a space before the text": self.adds_space,
            "it joins and strips spaces": self.joins_spaces,
            "it has no byte fallback": not self.byte_fallback,
            "it changes text after decoding": self.restores_text,
            "it does not spell spaces as ▁": not self.escapes_spaces,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds)

    def meaning(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return vars(self) | {"character_map": self.character_map.hex()}


def read_spec(model: bytes) -> ModelSpec:
    """The specification in a .model file; ValueError when it is none."""
    message = _fields(model)
    if not {_PIECES, _TRAINER, _NORMALIZER} <= message.keys():
        raise ValueError("it has no pieces, trainer or normaliser")
    trainer, normalizer = _inner(message, _TRAINER), _inner(message, _NORMALIZER)
    return ModelSpec(
        kind=_KINDS.get(int(trainer.get(_MODEL_TYPE, _UNIGRAM)), "sentencepiece"),
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, False)),
        space_is_suffix=bool(trainer.get(_SPACE_IS_SUFFIX, False)),
        character_map=_bytes(normalizer.get(_CHARACTER_MAP)),
        adds_space=bool(normalizer.get(_ADD_SPACE, True)),
        joins_spaces=bool(normalizer.get(_JOIN_SPACES, True)),
        escapes_spaces=bool(normalizer.get(_ESCAPE_SPACES, True)),
        restores_text=bool(_inner(message, _DENORMALIZER).get(_CHARACTER_MAP)),
    )


def _inner(message: Fields, field: int) -> Fields:
    return _fields(_bytes(message.get(field)))


def _bytes(value: int | bytes | None) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value or b""


def _fields(message: bytes) -> Fields:
    """The last value of every field; https://protobuf.dev/programming-guides/encoding."""
    fields: Fields = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire_type = key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            fields[key >> 3] = value
            continue
        if wire_type == 2:
            size, position = _varint(message, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire_type}")
        if position + size > len(message):
            raise ValueError("it is cut short")
        fields[key >> 3] = message[position : position + size]
        position += size
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("it is cut short")
