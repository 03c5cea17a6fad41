"""Chat templates: a conversation as text in which every stretch that the assistant wrote is marked.

Templates are Jinja as in `transformers`: they are given `messages`, `tools`, `add_generation_prompt`,
`bos_token` and `eos_token`, run in jinja2's sandbox, and put what the assistant writes between
`{% generation %}` and `{% endgeneration %}`. The marks are characters of the rendered text itself, so that
no position is ever searched for. A template without them is rendered turn by turn instead, each rendering
being the beginning of the next; one that does not allow it is refused.

`Template.check` proves of a template, before it makes a dataset, what a chat relies on: that the text before
an answer is the same whether or not the answer follows, and that exactly the answers are trained, with their
end of turn.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data.examples.messages import MARKS, Conversation, Message, Rejected
from data.tokenizers import Tokenizer
from seedbed.errors import ConfigError, DataError, nearest
from seedbed.files import digest_of

SUFFIX = ".jinja"
CPU_S, TRIAL_S = 5, 30
"""For a template that is not ours: what rendering may take, and the process with its start."""
BEGIN, END, GUARD = MARKS
BEGINNINGS = ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]")
"""What makers of tokenizers call the token that a text begins with."""

_CONTROL = re.compile(r"<\|\w+\|>|</?s>|<(?:bos|eos|start_of_turn|end_of_turn)>|\[/?[A-Z_]{4,}\]")


class Piece(NamedTuple):
    """A stretch of rendered text: written by the assistant, or not."""

    text: str
    is_written: bool


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: its text, between two marks."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{BEGIN}{caller()}{END}"


class Template:
    """One template, rendered for one tokenizer."""

    def __init__(self, source: str, origin: str, special_tokens: Mapping[str, int], end_of_text: str) -> None:
        self.origin, self.source = origin, source
        self.digest = digest_of(source)
        self._names = {
            "bos_token": next((name for name in BEGINNINGS if name in special_tokens), ""),
            "eos_token": end_of_text,
        }
        by_length = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        try:
            self._compiled = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigError(f"{origin} is not a template: {error}", "correct it, or name another") from None

    @classmethod
    def load(cls, name_or_path: str, tokenizer: Tokenizer) -> "Template":
        """A shipped template, or that of a .jinja file, checked; ConfigError when it does not exist."""
        folder = resources.files(__package__) / "chat_templates"
        shipped = sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))
        if name_or_path in shipped:
            source = (folder / f"{name_or_path}{SUFFIX}").read_text(encoding="utf-8")
        else:
            try:
                source = Path(name_or_path).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                guess = nearest(name_or_path, shipped)
                raise ConfigError(
                    f"data.template = {name_or_path!r} is no shipped template and cannot be read: {error}",
                    (f"did you mean {guess!r}? " if guess else "")
                    + f"shipped are {', '.join(shipped)}; or give the path of a {SUFFIX} file",
                ) from None
            _try_apart(name_or_path, source, tokenizer)
        template = cls(source, name_or_path, tokenizer.special_ids, tokenizer.end_of_text)
        template.check()
        return template

    @cached_property
    def has_marks(self) -> bool:
        """Whether the template says itself what the assistant writes."""
        return re.search(r"{%[-+]?\s*generation\b", self.source) is not None

    @property
    def spelled(self) -> list[str]:
        """What looks like a special token of the template and is none of the tokenizer's: it becomes text."""
        found = dict.fromkeys(_CONTROL.findall(self.source))
        return [name for name in found if not self._special.fullmatch(name)]

    def pieces(self, conversation: Conversation) -> list[Piece]:
        """The whole conversation; raises Rejected when the template refuses it.

        Special tokens that messages spell out are guarded, see `encoding.py`. Raises DataError when the
        text of a template without marks changes as the conversation goes on.
        """
        messages = [_guarded(message, self._special) for message in conversation.messages]
        tools = _guarded(list(conversation.tools), self._special)
        text = self._render(messages, tools)
        for message in messages:
            for call in message["tool_calls"]:
                if call["name"] not in text:
                    raise Rejected("template", f"{self.origin} leaves out calls of tools")
        return _cut(text) if self.has_marks else self._by_prefixes(messages, tools, text)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[Piece]:
        """What stands before the assistant's next turn: what a model is given when it is to answer."""
        guarded = [_guarded(message, self._special) for message in messages]
        text = self._render(guarded, _guarded(list(tools), self._special), asks=True)
        return _cut(text) if self.has_marks else [Piece(text, False)]

    def _render(self, messages: Sequence[Message], tools: Sequence[Any], *, asks: bool = False) -> str:
        try:
            return self._compiled.render(
                messages=messages,
                tools=list(tools) or None,
                add_generation_prompt=asks,
                raise_exception=_raise,
                **self._names,
            )
        except (Rejected, MemoryError):
            raise
        except Exception as error:  # whatever an expression of the template raises
            reason = str(error).strip() or type(error).__name__
            raise Rejected("template", f"{self.origin} cannot render it: {reason}") from error

    def _by_prefixes(self, messages: list[Message], tools: list[Any], text: str) -> list[Piece]:
        """An answer begins where the text that asks for it ends, and ends where the next turn begins."""
        pieces, at = [], 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:number], tools, asks=True)
            after = self._render(messages[: number + 1], tools)
            if not (text.startswith(before) and text.startswith(after) and at <= len(before) < len(after)):
                raise self._unusable(
                    "it has no {% generation %} marks, and does not render the beginning of a conversation "
                    "as the beginning of its text"
                )
            # What only separates turns is not written by the assistant.
            written = after[len(before) :].rstrip()
            pieces += [Piece(text[at : len(before)], False), Piece(written, True)]
            at = len(before) + len(written)
        return [piece for piece in [*pieces, Piece(text[at:], False)] if piece.text or piece.is_written]

    def check(self) -> None:
        """Raises DataError unless prefixes render to prefixes and exactly the answers are marked."""
        num_rendered = 0
        for probe in _probes():
            try:
                pieces = self.pieces(probe)
            except Rejected:
                continue  # a role that the format does not have
            num_rendered += 1
            self._check_marks(probe, pieces)
            self._check_prefixes(probe, pieces)
        if not num_rendered:
            reason = ""
            try:
                self.pieces(_probes()[0])
            except Rejected as error:
                reason = error.detail
            raise self._unusable(f"it renders none of the usual conversations ({reason})")

    def _check_marks(self, probe: Conversation, pieces: list[Piece]) -> None:
        written = [piece.text for piece in pieces if piece.is_written]
        answers = [message for message in probe.messages if message["role"] == "assistant"]
        if len(written) != len(answers):
            raise self._unusable(f"of {len(answers)} answers it marks {len(written)} as the assistant's")
        others = [message["content"] for message in probe.messages if message["role"] != "assistant"]
        for text, answer in zip(written, answers, strict=True):
            name = answer["tool_calls"][0]["name"] if answer["tool_calls"] else answer["content"]
            if name not in text:
                raise self._unusable(f"what it marks as the assistant's is {text!r}, without {name!r}")
            if text.strip().endswith(name):
                raise self._unusable(
                    f"it marks {text!r} without an end of turn, which would never be learned"
                )
            if any(other in text for other in others):
                raise self._unusable(f"it marks {text!r} as the assistant's, which holds what others say")

    def _check_prefixes(self, probe: Conversation, pieces: list[Piece]) -> None:
        text, tools = "".join(piece.text for piece in pieces), list(probe.tools)
        lengths = [len(piece.text) for piece in pieces]
        begins = [sum(lengths[:number]) for number, piece in enumerate(pieces) if piece.is_written]
        for number, message in enumerate(probe.messages):
            if message["role"] == "assistant":
                before = _unmarked(self._render(probe.messages[:number], tools, asks=True))
                upto = _unmarked(self._render(probe.messages[: number + 1], tools))
                if not text.startswith(before) or not text.startswith(upto) or len(before) != begins.pop(0):
                    raise self._unusable(
                        f"the text before answer {number} is another when the answer is asked for than when "
                        "it is there, so that no model would be asked as it was trained (does it write the "
                        "assistant's header when add_generation_prompt is true?)"
                    )

    def _unusable(self, why: str) -> DataError:
        return DataError(
            f"the chat template {self.origin} cannot be trained on: {why}",
            "put {% generation %} and {% endgeneration %} around what the assistant writes, its end of turn "
            "included, and let no turn depend on later ones",
        )


def _try_apart(origin: str, source: str, tokenizer: Tokenizer) -> None:
    """ConfigError for a template of somebody's that takes too long, or too much memory, for a short
    conversation.

    That is found out where it does no harm; one that does so for long conversations alone is not found.
    """
    given = json.dumps([source, origin, dict(tokenizer.special_ids), tokenizer.end_of_text])
    command = [sys.executable, "-P", "-m", "data.examples.template_trial"]
    try:
        done = subprocess.run(
            command, input=given.encode(), capture_output=True, timeout=TRIAL_S, check=False
        )
        code, said = done.returncode, done.stderr.decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        code, said = -signal.SIGXCPU, ""
    is_greedy = code < 0 or said.endswith("MemoryError")
    if is_greedy:
        raise ConfigError(
            f"{origin} took more than {CPU_S} s, or a gigabyte of memory, to render a short conversation",
            "let it loop over messages and tools alone",
        )
    if code:
        raise ConfigError(f"{origin} could not be tried: {said.splitlines()[-1]}", "report it")


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
        extensions=[_Generation, loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise Rejected("template", message)


def _cut(text: str) -> list[Piece]:
    """The pieces between marks."""
    pieces = []
    before, *marked = text.split(BEGIN)
    pieces.append(Piece(before, False))
    for part in marked:
        written, _, after = part.partition(END)
        pieces += [Piece(written, True), Piece(after, False)]
    return [piece for piece in pieces if piece.text or piece.is_written]


def _unmarked(text: str) -> str:
    return text.replace(BEGIN, "").replace(END, "")


def _guarded(value: Any, special: re.Pattern[str]) -> Any:
    """`value` with every special token that one of its texts spells out broken by a guard."""
    if isinstance(value, str):
        return special.sub(lambda found: f"{found[0][:1]}{GUARD}{found[0][1:]}", value)
    if isinstance(value, dict):
        return {key: _guarded(entry, special) for key, entry in value.items()}
    return [_guarded(entry, special) for entry in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=1)
def _probes() -> list[Conversation]:
    """Conversations of every shape, each text of which occurs once."""

    def turn(role: str, text: str, call: str = "") -> Message:
        calls = [{"name": call, "arguments": {"of": 7}, "id": "call00001"}] if call else []
        return {"role": role, "content": text, "tool_calls": calls, "weight": 1}

    talk = [turn(role, f"{role}-{n}") for n in range(3) for role in ("user", "assistant")]
    system = turn("system", "system-0")
    used = [turn("user", "user-0"), turn("assistant", "", "look-up"), turn("tool", "tool-0")]
    tools = ({"type": "function", "function": {"name": "look-up", "parameters": {}}},)
    shapes = [talk[:2], talk[:4], talk, [system, *talk], [*used, *talk[1:4]], [system, *used, *talk[1:]]]
    found = [Conversation(tuple(shape)) for shape in shapes]
    return [*found, Conversation((system, *used, *talk[1:]), tools)]
