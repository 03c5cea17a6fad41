"""Stop strings: text that ends an answer, wherever in a token it begins or ends."""

from collections.abc import Sequence

from models.generation.requests import Decode

# Tokens in front of the window, whose text may be joined to the first token's otherwise (a leading space).
MARGIN = 4


def ends_with_stop(tokens: Sequence[int], stop_strings: Sequence[str], decode: Decode) -> bool:
    """Whether the newest of `tokens` completed one of `stop_strings`; looks only as far back as it must."""
    if not stop_strings:
        return False
    # A token that is shown holds one byte at least.
    window = max(len(text.encode()) for text in stop_strings) + MARGIN
    text = decode(tokens[-window:])
    return any(stop in text for stop in stop_strings)


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> str:
    """`text` up to the first stop string in it."""
    found = [text.find(stop) for stop in stop_strings]
    return text[: min((at for at in found if at >= 0), default=len(text))]


def safe_length(text: str, stop_strings: Sequence[str]) -> int:
    """How much of a growing `text` can be shown: a stop string, or part of a character, may follow it."""
    text = text.rstrip("\ufffd")
    longest = 0
    for stop in stop_strings:
        longest = max(longest, max((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0))
    return len(text) - longest
