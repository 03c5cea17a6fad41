"""Quality filters beside datatrove's: speed on one core, and whether they decide alike.

Each round judges the same documents with ours and then with datatrove's, filter by filter and all four in
order. Compiling (ours) and imports (theirs) are not counted; a warm-up precedes both.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.config import FILTERS
from data.filters import Rejected, TextFilters

PEER = Path(__file__).parent / "peers" / "datatrove_filters.py"
WARM_UP = 20

# datatrove's names of reasons -> ours.
REASONS = {
    "gopher_short_doc": "gopher_quality.min_words",
    "gopher_long_doc": "gopher_quality.max_words",
    "gopher_below_avg_threshold": "gopher_quality.min_mean_word_chars",
    "gopher_above_avg_threshold": "gopher_quality.max_mean_word_chars",
    "gopher_too_many_hashes": "gopher_quality.max_symbol_word_ratio",
    "gopher_too_many_ellipsis": "gopher_quality.max_symbol_word_ratio",
    "gopher_too_many_bullets": "gopher_quality.max_bullet_line_ratio",
    "gopher_too_many_end_ellipsis": "gopher_quality.max_ellipsis_line_ratio",
    "gopher_below_alpha_threshold": "gopher_quality.min_letter_word_ratio",
    "gopher_enough_stop_words": "gopher_quality.min_stop_words",
    "dup_para_frac": "gopher_repetition.max_duplicate_paragraphs",
    "dup_para_char_frac": "gopher_repetition.max_duplicate_paragraph_chars",
    "dup_line_frac": "gopher_repetition.max_duplicate_lines",
    "dup_line_char_frac": "gopher_repetition.max_duplicate_line_chars",
    **{f"top_{size}_gram": f"gopher_repetition.max_top_{size}gram_chars" for size in (2, 3, 4)},
    **{
        f"duplicated_{size}_n_grams": f"gopher_repetition.max_duplicate_{size}gram_chars"
        for size in range(5, 11)
    },
    "lorem_ipsum": "c4.drop_lorem_ipsum",
    "curly_bracket": "c4.drop_curly_bracket",
    "too_few_sentences": "c4.min_sentences",
    "line_punct_ratio": "fineweb.min_line_punctuation_ratio",
    "short_line_ratio": "fineweb.max_short_line_ratio",
    "char_dup_ratio": "fineweb.max_duplicate_line_chars",
    "list_ratio": "fineweb.max_line_feed_word_ratio",
}


def run(quick: bool) -> dict[str, Any]:
    """MB/s of UTF-8 for each filter and for all, the ratios of the rounds, each document judged otherwise."""
    from data_bench.filter_corpus import documents
    from data_bench.peer import peer_python

    texts = documents(*((200, 20) if quick else (2000, 100)))
    rounds = 2 if quick else 3
    seconds: dict[str, list[dict[str, float]]] = {"seedbed": [], "datatrove": []}
    theirs: dict[str, Any] = {}
    for _ in range(rounds):
        spent, ours = judge(texts)
        seconds["seedbed"].append(spent)
        if peer_python() is not None:
            result, theirs = judge_with_datatrove(texts)
            seconds["datatrove"].append(result["seconds"])
    num_bytes = sum(len(text.encode()) for text in texts)
    return {
        "documents": len(texts),
        "megabytes": round(num_bytes / 1e6, 3),
        "kept_by_all": sum(isinstance(verdict, str) for verdict in ours["all"]),
        "mb_per_s": {name: _rates(spent, num_bytes) for name, spent in seconds.items() if spent},
        "over_datatrove": _ratios(seconds) if theirs else "no peers",
        "agreement": {name: agreement(texts, ours[name], theirs[name]) for name in theirs},
    }


def chains() -> dict[str, TextFilters]:
    """Each filter by itself, and all in order."""
    return {**{name: TextFilters([name]) for name in FILTERS}, "all": TextFilters(FILTERS)}


def judge(texts: Sequence[str]) -> tuple[dict[str, float], dict[str, list[str | Rejected]]]:
    """Seconds and verdicts of each chain."""
    seconds, verdicts = {}, {}
    for name, chain in chains().items():
        chain(texts[:WARM_UP])
        begun = time.perf_counter()
        verdicts[name] = chain(texts)
        seconds[name] = time.perf_counter() - begun
    return seconds, verdicts


def judge_with_datatrove(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[str | list[str]]]]:
    """What the peer prints, and its verdicts: a text, or a list with a reason."""
    from data_bench.peer import run_peer

    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "texts.json"), Path(folder, "verdicts.json")
        asked.write_text(json.dumps(texts), encoding="utf-8")
        result = run_peer(PEER, str(asked), str(answered))
        return result, json.loads(answered.read_text(encoding="utf-8"))


def agreement(
    texts: Sequence[str], ours: Sequence[str | Rejected], theirs: Sequence[str | list[str]]
) -> dict[str, Any]:
    """Shares of documents with the same decision, and with the same reason or text; what differs, by kind."""
    same_decision, same_answer = 0, 0
    different: dict[str, list[str]] = {}
    for text, mine, other in zip(texts, ours, theirs, strict=True):
        answer = mine.reason if isinstance(mine, Rejected) else mine
        expected = REASONS.get(other[0], other[0]) if isinstance(other, list) else other
        same_decision += isinstance(mine, Rejected) == isinstance(other, list)
        same_answer += answer == expected
        if answer != expected:
            kind = f"{_named(mine, answer)} / {_named(other, expected)}"
            different.setdefault(kind, []).append(text[:80])
    return {
        "same_decision": round(same_decision / len(texts), 5),
        "same_reason_or_text": round(same_answer / len(texts), 5),
        "different": different,
    }


def _named(verdict: object, answer: str) -> str:
    return "kept" if isinstance(verdict, str) else answer


def _rates(rounds: Sequence[dict[str, float]], num_bytes: int) -> dict[str, Any]:
    from data_bench.spread import spread

    return {name: spread([num_bytes / 1e6 / spent[name] for spent in rounds]) for name in rounds[0]}


def _ratios(seconds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    from data_bench.spread import spread

    pairs = list(zip(seconds["seedbed"], seconds["datatrove"], strict=True))
    return {name: spread([theirs[name] / ours[name] for ours, theirs in pairs]) for name in pairs[0][0]}
