"""Rows of the usual formats to candidates: one conversation, or several that answer the same prompt.

    messages         {"messages": [{"role", "content"}, ...], "tools"?}
                     or {"conversations": [{"from", "value"}]}
    prompt-response  {"prompt", "response" or "completion", "system"?}
    instruction      {"instruction", "input"?, "output", "system"?}
    preference       {"prompt"?, "chosen", "rejected", "margin"?}: texts, or lists of messages
    ranking          {"prompt", "responses"}: best first, or with "ranks" (1 is best) or "scores" (best: most)
    feedback         {"prompt", "response" or "completion", "label": true or false}

A prompt may be a text or a list of messages everywhere. A row that is none of this is `Rejected` with a
reason that is counted and a detail for a person.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seedbed.files import digest_of

Message = dict[str, Any]
"""role, content, and tool_calls [{name, arguments, id?}], tool_call_id where there are any; weight 0 or 1."""

ROLES = ("system", "user", "assistant", "tool")
_ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "function": "tool",
    "ipython": "tool",
}
_AFTER = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
"""Role -> the roles that may follow it."""

MAX_CANDIDATES = 64

# What marks spans and guards special tokens in rendered text (see templates.py): Unicode's noncharacters.
MARKS = ("\ufdd0", "\ufdd1", "\ufdd2")


class Rejected(Exception):
    """A row that no example can be made of."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Conversation:
    """Messages that were checked, the last of them the assistant's, and the tools that it may call."""

    messages: tuple[Message, ...]
    tools: tuple[Any, ...] = ()
    num_given: int = 0
    """Messages that only lead up to the answer: what they hold is not trained."""


@dataclass(frozen=True)
class Candidates:
    """Conversations that answer one prompt; `ranks` counts from 0, the best, and may repeat."""

    conversations: tuple[Conversation, ...]
    ranks: tuple[int, ...] = (0,)
    margin: float = 0.0
    weight: float = 1.0
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_key(self) -> str:
        """What examples of one prompt share, so that a split keeps them together."""
        first = self.conversations[0].messages
        return digest_of([m["content"] for m in first if m["role"] == "user"][:1])


def candidates_of(row: dict[str, Any], format: str) -> Candidates:
    """What a row of `format` says; raises Rejected."""
    found = FORMATS[format](row)
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise Rejected("malformed", f'"weight" is {weight!r}, not a number above 0')
    return Candidates(found.conversations, found.ranks, found.margin, float(weight))


def _messages(row: dict[str, Any]) -> Candidates:
    key = "messages" if row.get("conversations") is None else "conversations"
    return Candidates((conversation(_given(row, key), _tools(row)),))


def _prompt_response(row: dict[str, Any]) -> Candidates:
    return Candidates((_answered(row, _given(row, "response", "completion")),))


def _instruction(row: dict[str, Any]) -> Candidates:
    asked, more = _given(row, "instruction"), row.get("input") or ""
    if not isinstance(asked, str) or not isinstance(more, str):
        raise Rejected("malformed", '"instruction" and "input" must be texts')
    prompt = f"{asked}\n\n{more}" if more.strip() else asked
    return Candidates((_answered({**row, "prompt": prompt}, _given(row, "output")),))


def _preference(row: dict[str, Any]) -> Candidates:
    sides = [_given(row, name) for name in ("chosen", "rejected")]
    if "prompt" not in row:
        if not all(isinstance(side, list) for side in sides):
            raise Rejected(
                "missing_field", 'field "prompt" is missing, and the sides are no lists of messages'
            )
        shared = 0
        while shared < min(map(len, sides)) and sides[0][shared] == sides[1][shared]:
            shared += 1
        _refuse_identical(sides)
        row, sides = {**row, "prompt": sides[0][:shared]}, [side[shared:] for side in sides]
    _refuse_identical(sides)
    margin = 0.0 if row.get("margin") is None else row["margin"]
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise Rejected("malformed", f'"margin" is {margin!r}, not a number from 0 on')
    chosen, rejected = (_answered(row, side) for side in sides)
    return Candidates((chosen, rejected), (0, 1), float(margin))


def _refuse_identical(sides: list[Any]) -> None:
    texts = [side.strip() if isinstance(side, str) else side for side in sides]
    if all(text == texts[0] for text in texts[1:]):
        raise Rejected("identical_sides", "all answers are the same: nothing is preferred")


def _ranking(row: dict[str, Any]) -> Candidates:
    responses = _given(row, "responses")
    if not isinstance(responses, list) or not 2 <= len(responses) <= MAX_CANDIDATES:
        raise Rejected("malformed", f'"responses" must be a list of 2 to {MAX_CANDIDATES} answers')
    _refuse_identical(responses)
    if len({digest_of(response) for response in responses}) < len(responses):
        raise Rejected("repeated_answer", "an answer occurs twice, so that it would be preferred to itself")
    order: list[Any] = list(range(len(responses)))
    if "ranks" in row:
        order = _numbers(row, "ranks", len(responses))
    elif "scores" in row:
        order = [-score for score in _numbers(row, "scores", len(responses))]
    places = sorted(set(order))
    if len(places) == 1:
        raise Rejected("identical_sides", "all answers have the same rank: nothing is preferred")
    ranks = tuple(places.index(value) for value in order)
    return Candidates(tuple(_answered(row, response) for response in responses), ranks)


def _feedback(row: dict[str, Any]) -> Candidates:
    label = _given(row, "label")
    if not isinstance(label, bool):
        raise Rejected("malformed", f'"label" is {label!r}, not true or false')
    return Candidates((_answered(row, _given(row, "response", "completion")),), (0 if label else 1,))


FORMATS: dict[str, Callable[[dict[str, Any]], Candidates]] = {
    "messages": _messages,
    "prompt-response": _prompt_response,
    "instruction": _instruction,
    "preference": _preference,
    "ranking": _ranking,
    "feedback": _feedback,
    "python-functions": _prompt_response,
}
"""`data.format` -> what makes candidates of its rows."""


def conversation(messages: Any, tools: tuple[Any, ...] = (), num_given: int = 0) -> Conversation:
    """Messages in the order that roles may have, checked one by one; raises Rejected."""
    if not isinstance(messages, list) or not messages:
        raise Rejected("malformed", "messages are not a list with anything in it")
    checked: list[Message] = []
    for number, given in enumerate(messages):
        message = _message(given, number)
        before = checked[-1]["role"] if checked else ""
        if message["role"] not in _AFTER[before]:
            where = f"after {before!r}" if before else "first"
            wanted = " or ".join(_AFTER[before])
            raise Rejected("roles", f"message {number} is of {message['role']!r} {where}, not of {wanted}")
        checked.append(message)
    if checked[-1]["role"] != "assistant":
        raise Rejected("unanswered", f"the last message is of {checked[-1]['role']!r}, not of 'assistant'")
    return Conversation(tuple(checked), tools, num_given)


def _message(given: Any, number: int) -> Message:
    if not isinstance(given, dict):
        raise Rejected("malformed", f"message {number} is no object")
    role = given.get("role", given.get("from"))
    role = _ROLE_NAMES.get(str(role), role)
    if role not in ROLES:
        raise Rejected("roles", f"message {number} is of {role!r}; roles are {', '.join(ROLES)}")
    calls = [_call(call, number) for call in given.get("tool_calls") or ()]
    content = _text(given.get("content", given.get("value")), number, may_lack=bool(calls))
    if calls and role != "assistant":
        raise Rejected("roles", f"message {number} calls a tool, and is of {role!r}")
    if not content.strip() and not calls and role != "tool":
        reason = "empty_response" if role == "assistant" else "empty_message"
        raise Rejected(reason, f"message {number}, of {role!r}, has no text")
    weight = given.get("weight", 1)
    if weight not in (0, 1):
        raise Rejected("malformed", f"message {number} has weight {weight!r}, not 0 or 1")
    message = {"role": role, "content": content, "tool_calls": calls, "weight": int(weight)}
    if isinstance(given.get("tool_call_id"), str):
        message["tool_call_id"] = given["tool_call_id"]
    return message


def _call(given: Any, number: int) -> dict[str, Any]:
    """A tool call, with or without the wrapper that says "function"."""
    function = given.get("function", given) if isinstance(given, dict) else {}
    name, arguments = function.get("name"), function.get("arguments", {})
    if not isinstance(name, str):
        raise Rejected("malformed", f"message {number} has a tool call without a name")
    call = {"name": name, "arguments": arguments}
    return call | ({"id": given["id"]} if isinstance(given.get("id"), str) else {})


def _text(content: Any, number: int, *, may_lack: bool) -> str:
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = None if any(not isinstance(part, str) for part in parts) else "".join(map(str, parts))
    elif content is None and may_lack:
        content = ""
    if not isinstance(content, str):
        raise Rejected("malformed", f"message {number} has no text for its content")
    if any(mark in content for mark in MARKS):
        raise Rejected("noncharacter", f"message {number} holds one of U+FDD0 to U+FDD2, which are no text")
    return content


def _answered(row: dict[str, Any], response: Any) -> Conversation:
    """The prompt of a row, and this answer to it."""
    prompt = _given(row, "prompt")
    before = list(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if isinstance(row.get("system"), str) and row["system"].strip():
        before = [{"role": "system", "content": row["system"]}, *before]
    if isinstance(response, str):
        response = [{"role": "assistant", "content": response}]
    if not isinstance(response, list):
        raise Rejected("malformed", "an answer is neither a text nor a list of messages")
    if not response:
        raise Rejected("empty_response", "an answer has no messages")
    return conversation([*before, *response], _tools(row), len(before))


def _given(row: dict[str, Any], *names: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    fields = " or ".join(f'"{name}"' for name in names)
    what = "null" if any(name in row for name in names) else "missing"
    raise Rejected("missing_field", f"field {fields} is {what}; the row has {', '.join(list(row)[:20])}")


def _numbers(row: dict[str, Any], name: str, count: int) -> list[float]:
    values = row[name]
    if not isinstance(values, list) or len(values) != count:
        raise Rejected("malformed", f'"{name}" must be a list of {count} numbers')
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise Rejected("malformed", f'"{name}" holds what is no number')
    return values


def _tools(row: dict[str, Any]) -> tuple[Any, ...]:
    tools = row.get("tools") or ()
    if not isinstance(tools, list | tuple):
        raise Rejected("malformed", '"tools" is not a list')
    return tuple(tools)
