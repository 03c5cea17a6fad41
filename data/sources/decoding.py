"""From bytes or JSON strings to documents: what is text, and what happens to what is not.

UTF-8 is strict and newlines stay as they are, so that the byte counts of a dataset are those of
its input.
"""

import json
import re
from typing import Any, Literal

from data.sources.documents import Document, Drop
from seedbed.errors import DataError

Policy = Literal["drop", "replace", "fail"]

REPLACEMENT = "\ufffd"

# JSON can spell an unpaired surrogate ("\ud800"): a Python string, but no UTF-8 text.
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
# NUL as JSON spells it, behind an even number of backslashes.
_SPELLED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def document_from_bytes(raw: bytes, policy: Policy, id: str, source: str, offset: int = 0) -> Document | Drop:
    """The document whose text is `raw`, read from byte `offset` of `source`."""
    nul = raw.find(b"\0")
    if nul >= 0:
        problem, detail = "binary", f"NUL at byte {offset + nul}"
    else:
        try:
            return _unless_empty(Document(raw.decode("utf-8"), id, source))
        except UnicodeDecodeError as error:
            problem, detail = "undecodable", f"byte {offset + error.start} is not UTF-8 ({error.reason})"
    text = raw.decode("utf-8", errors="replace").replace("\0", REPLACEMENT) if policy == "replace" else ""
    return undecodable(policy, Drop(id, source, problem, detail)) or Document(text, id, source, replaced=True)


def document_from_string(
    text: str, policy: Policy, id: str, source: str, meta: dict[str, Any], replaced: bool = False
) -> Document | Drop:
    """The document whose text a parser has already decoded; `replaced` says what it did to that end."""
    found = None if _is_text(text) else _NOT_TEXT.search(text)
    if found is None:
        return _unless_empty(Document(text, id, source, meta, replaced))
    kind = "NUL" if found[0] == "\0" else "an unpaired surrogate"
    drop = Drop(id, source, "undecodable", f"character {found.start()} of the text is {kind}")
    return undecodable(policy, drop) or Document(_NOT_TEXT.sub(REPLACEMENT, text), id, source, meta, True)


def document_from_row(
    row: dict[str, Any], policy: Policy, id: str, source: str, replaced: bool = False
) -> Document | Drop:
    """The document that is a whole row of JSON: its text is the row, spelled in one way, `meta` the row."""
    text = _spelled(row)
    if _is_text(text) and not _SPELLED_NUL.search(text):
        return Document(text, id, source, row, replaced)
    drop = Drop(id, source, "undecodable", "a text of the row holds NUL or an unpaired surrogate")
    row = _repaired(row)
    return undecodable(policy, drop) or Document(_spelled(row), id, source, row, True)


def _spelled(row: dict[str, Any]) -> str:
    # A table may hold dates and the like, which JSON has no form for.
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_TEXT.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {_repaired(key): _repaired(entry) for key, entry in value.items()}
    return [_repaired(entry) for entry in value] if isinstance(value, list) else value


def _is_text(text: str) -> bool:
    """What `_NOT_TEXT` does not find; tens of times faster than to search for it."""
    if "\0" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def too_long(id: str, source: str, num_bytes: int, max_bytes: int) -> Drop:
    """The drop of what has more than `data.max_document_bytes` bytes."""
    detail = f"{num_bytes:,} bytes, more than data.max_document_bytes = {max_bytes:,}"
    return Drop(id, source, "too_long", detail)


def id_of(value: object, where: str) -> str:
    """The id that a row gives itself, or else where it is."""
    return printable(str(value)) if isinstance(value, str | int) and value != "" else where


def printable(name: str) -> str:
    """`name` as valid UTF-8: file names and JSON ids may hold what cannot be encoded."""
    return name.encode("utf-8", errors="backslashreplace").decode("utf-8")


def undecodable(policy: Policy, drop: Drop) -> Drop | None:
    """`drop` where the policy is to drop, None where it is to replace, DataError where it is to fail."""
    if policy == "fail":
        raise DataError(
            f"{drop.source}: {drop.detail}",
            "repair or leave out the file, or set data.on_undecodable to drop or replace",
        )
    return drop if policy == "drop" else None


def _unless_empty(document: Document) -> Document | Drop:
    if document.text and not document.text.isspace():
        return document
    return Drop(document.id, document.source, "empty", "no text but white space")
