"""A language model as the judge of two answers, behind an endpoint that speaks OpenAI's chat completions.

Judges prefer what they read first (Zheng et al. 2023, "Judging LLM-as-a-judge"): each pair is asked in both
orders, and only a verdict that stays when the order is turned is one; the others are ties, and counted. What
was asked is kept in a cache, by all that the answer depends on. An endpoint that is down, busy or talking
nonsense is asked again, with pauses that double; after that the pair has a failure, and no verdict.
"""

import http.client
import json
import os
import re
import threading
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seedbed.errors import UsageError, did_you_mean
from seedbed.files import append_line, digest_of, read_lines
from seedbed.statistics import share_interval
from training.rl.outcomes import Failure

Choice = Literal["first", "second", "tie"]

TEMPLATE = """You compare two answers to the same prompt.

[Prompt]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

{criterion}
Reply with exactly one line: "Verdict: A", "Verdict: B" or "Verdict: tie"."""

RATING_TEMPLATE = """You rate an answer to a prompt.

[Prompt]
{prompt}

[Answer]
{answer}

{criterion}
Reply with exactly one line: "Rating: N", N being a whole number from 1 (of no use) to 5 (perfect)."""

_RATING = re.compile(r"^\W*rating\W*:\W*([1-5])(?:\W*/\W*5)?\W*$", re.IGNORECASE | re.MULTILINE)
_VERDICT = re.compile(r"^\W*verdict\W*:\W*(?:answer\W+)?(a|b|tie)\W*$", re.IGNORECASE | re.MULTILINE)
"""On a line of its own; judges like to set it in bold, or in brackets."""
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class JudgeConfig:
    """Whom to ask, and how."""

    url: str
    """Such as http://127.0.0.1:8000/v1."""
    model: str
    criterion: str = "Which answer is better: more correct, more useful, and no longer than it has to be?"
    key_variable: str = "OPENAI_API_KEY"
    """Environment: where the key is. It is written nowhere, and sent over https, or to this machine,
    alone."""
    timeout_s: float = 60.0
    num_tries: int = 4
    pause_s: float = 1.0
    """Before the second try; doubled for each one after it."""
    at_once: int = 8

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"{self.url!r} is no address of a judge", "such as http://127.0.0.1:8000/v1")

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way reads what is sent."""
        host = urllib.parse.urlsplit(self.url).hostname or ""
        return self.url.startswith("https://") or host in ("localhost", "::1") or host.startswith("127.")


def judge_config(path: Path) -> JudgeConfig:
    """The table of a TOML file. Raises UsageError that names the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a judge's settings: {error}", "mend it") from None
    types = {"timeout_s": (int, float), "pause_s": (int, float), "num_tries": (int,), "at_once": (int,)}
    names = [one.name for one in fields(JudgeConfig)]
    for key, value in table.items():
        if key not in names:
            raise UsageError(
                f"{path}: a judge has no setting {key!r}",
                did_you_mean(key, names, f"there are {', '.join(names)}", "'{}'"),
            )
        if not isinstance(value, types.get(key, (str,))) or isinstance(value, bool):
            raise UsageError(f"{path}: {key} = {value!r} is of another type", "give text, or a number")
    for key in ("url", "model"):
        if key not in table:
            raise UsageError(f"{path}: a judge needs {key}", 'such as url = "http://127.0.0.1:8000/v1"')
    return JudgeConfig(**table)


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class Verdict:
    """What became of a pair: a choice, or a failure."""

    choice: Choice | None
    is_consistent: bool = True
    """Whether both orders gave the same."""
    failure: Failure | None = None
    detail: str = ""


@dataclass
class Usage:
    """What asking cost."""

    asked: int = 0
    cached: int = 0
    tries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)


class _Failed(Exception):
    def __init__(self, kind: Failure, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class LlmJudge:
    """Asks for verdicts, several at once; `cache` is a file of JSON Lines that grows."""

    def __init__(self, config: JudgeConfig, cache: Path | None = None, others: Sequence[Path] = ()) -> None:
        """`others` are caches that are read and not written."""
        self.config, self.usage = config, Usage()
        self._lock = threading.Lock()
        self._cache_path = cache
        rows = [row for path in {*others, *filter(None, [cache])} for row in read_lines(path)]
        self._cache: dict[str, str] = {row["key"]: row["choice"] for row in rows if "key" in row}

    def verdicts(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One for each pair, in their order."""
        criterion = self.config.criterion
        texts = [
            TEMPLATE.format(prompt=pair.prompt, first=first, second=second, criterion=criterion)
            for pair in pairs
            for first, second in ((pair.first, pair.second), (pair.second, pair.first))
        ]
        answers = self._all_asked(texts, _choice_in)
        found = [_settled(*answers[place : place + 2]) for place in range(0, len(answers), 2)]
        self._count(verdict.failure for verdict in found)
        return found

    def ratings(self, answers: Sequence[tuple[str, str]]) -> list[int | None]:
        """From 1 to 5, of each (prompt, answer) by itself; None where that could not be found out."""
        criterion = self.config.criterion
        texts = [RATING_TEMPLATE.format(prompt=a, answer=b, criterion=criterion) for a, b in answers]
        found = self._all_asked(texts, _rating_in)
        self._count(one.kind for one in found if isinstance(one, _Failed))
        return [None if isinstance(one, _Failed) else int(one) for one in found]

    def _count(self, failures: Iterable[Failure | None]) -> None:
        for failure in filter(None, failures):
            self.usage.failures[failure] = self.usage.failures.get(failure, 0) + 1

    def _all_asked(self, texts: Sequence[str], read: Callable[[str], str]) -> list[Any]:
        """What `read` finds in each reply, or a `_Failed`."""
        with ThreadPoolExecutor(self.config.at_once) as threads:
            return list(threads.map(partial(self._asked, read=read), texts))

    def _asked(self, text: str, read: Callable[[str], str]) -> str | _Failed:
        key = digest_of([self.config.url, self.config.model, text])
        with self._lock:
            known = self._cache.get(key)
            self.usage.cached += known is not None
            self.usage.asked += known is None
        if known is not None:
            return known
        try:
            choice = self._tried(text, read)
        except _Failed as error:
            return error
        with self._lock:
            self._cache[key] = choice
            if self._cache_path is not None:
                append_line(self._cache_path, {"key": key, "choice": choice})
        return choice

    def _tried(self, text: str, read: Callable[[str], str]) -> str:
        """What `read` finds, after as many tries as there may be."""
        last = _Failed("unreachable", "never asked")
        for number in range(self.config.num_tries):
            if number:
                time.sleep(self.config.pause_s * 2 ** (number - 1))
            with self._lock:
                self.usage.tries += 1
            try:
                return read(self._completion(text))
            except _Failed as error:
                last = error
                if error.kind == "raised":
                    break
        raise last

    def _completion(self, text: str) -> str:
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 64,
        }
        headers = {"Content-Type": "application/json"}
        if (key := os.environ.get(self.config.key_variable)) and self.config.is_private:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.config.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self.config.timeout_s) as reply:
                value = json.loads(reply.read())
            content = value["choices"][0]["message"]["content"]
            usage = value.get("usage") or {}
            counts = [int(usage.get(f"{what}_tokens") or 0) for what in ("prompt", "completion")]
        except urllib.error.HTTPError as error:
            kind: Failure = "unreachable" if error.code in RETRIED else "raised"
            raise _Failed(kind, f"HTTP {error.code}: {error.reason}") from None
        except TimeoutError:
            raise _Failed("timeout", f"no answer within {self.config.timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise _Failed("timeout", f"no answer within {self.config.timeout_s:g} s") from None
            raise _Failed("unreachable", str(getattr(error, "reason", error)) or repr(error)) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Failed("malformed", f"the reply is no chat completion: {error!r}") from None
        with self._lock:
            self.usage.prompt_tokens += counts[0]
            self.usage.completion_tokens += counts[1]
        return str(content)


def _choice_in(text: str) -> Choice:
    found = {match.lower() for match in _VERDICT.findall(text)}
    if len(found) != 1:
        raise _Failed("malformed", f"no verdict in {text[:200]!r}")
    choices: dict[str, Choice] = {"a": "first", "b": "second", "tie": "tie"}
    return choices[found.pop()]


def _rating_in(text: str) -> str:
    found = set(_RATING.findall(text))
    if len(found) != 1:
        raise _Failed("malformed", f"no rating in {text[:200]!r}")
    return str(found.pop())


def _settled(forward: Choice | _Failed, backward: Choice | _Failed) -> Verdict:
    """Of the answers to both orders."""
    for answer in (forward, backward):
        if isinstance(answer, _Failed):
            return Verdict(None, failure=answer.kind, detail=answer.detail)
    turned = {"first": "second", "second": "first", "tie": "tie"}
    is_consistent = turned[backward] == forward  # type: ignore[index]
    return Verdict(forward if is_consistent else "tie", is_consistent)  # type: ignore[arg-type]


def calibrated(judge: LlmJudge, pairs: Sequence[Pair], gold: Sequence[Choice]) -> dict[str, Any]:
    """`agreement` on pairs of which the right choice is known, with "usage": what asking cost."""
    return agreement(judge.verdicts(pairs), gold) | {"usage": asdict(judge.usage)}


def agreement(verdicts: Sequence[Verdict], gold: Sequence[Choice]) -> dict[str, Any]:
    """How far a judge can be trusted.

    {"agreement": with gold, of the verdicts where neither is a tie, "interval", "decided": their share,
    "consistent": share of pairs with one verdict in both orders, "failed"}.
    """
    answered = [(v, g) for v, g in zip(verdicts, gold, strict=True) if not v.failure]
    decided = [(v, g) for v, g in answered if v.choice != "tie" and g != "tie"]
    right = sum(v.choice == g for v, g in decided)
    interval = share_interval(right, len(decided)) if decided else None
    count = max(1, len(answered))
    return {
        "agreement": right / len(decided) if decided else None,
        "interval": [interval.low, interval.high] if interval else None,
        "decided": len(decided) / count,
        "consistent": sum(v.is_consistent for v, _ in answered) / count,
        "failed": len(verdicts) - len(answered),
    }


def preferences(judge: LlmJudge, pairs: Sequence[Pair]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows of data.format = "preference" labelled by the judge (Bai et al. 2022, RLAIF), and what was left
    out: ties, verdicts that turned with the order, failures by kind."""
    rows, left_out = [], {"tie": 0, "inconsistent": 0}
    for pair, verdict in zip(pairs, judge.verdicts(pairs), strict=True):
        if verdict.failure:
            left_out[verdict.failure] = left_out.get(verdict.failure, 0) + 1
        elif verdict.choice == "tie":
            left_out["tie" if verdict.is_consistent else "inconsistent"] += 1
        else:
            sides = (pair.first, pair.second)[:: 1 if verdict.choice == "first" else -1]
            rows.append({"prompt": pair.prompt, "chosen": sides[0], "rejected": sides[1]})
    return rows, left_out
