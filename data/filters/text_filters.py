"""The quality filters of a build: named, with their thresholds, applied in order."""

import dataclasses
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.config import FILTERS
from data.filters.verdict import Rejected
from seedbed.errors import ConfigError, did_you_mean, nearest

# Raised when a filter decides differently than before with the same thresholds.
VERSION = 1


class TextFilters:
    """Quality filters in the order given; the first that rejects a document decides.

    `options` are thresholds other than the published ones, by "FILTER.THRESHOLD". Raises ConfigError for
    names that are not known, options of filters that are not applied and values of the wrong type, and
    DataError without numba.
    """

    def __init__(self, names: Sequence[str], options: Mapping[str, float | bool] | None = None) -> None:
        kinds = {name: _kind(name) for name in names}
        if len(kinds) < len(names):
            raise ConfigError(f"data.filters names a filter twice: {', '.join(names)}", "name each one once")
        thresholds: dict[str, dict[str, float | bool]] = {name: {} for name in names}
        for option, value in (options or {}).items():
            name, field = _checked_option(option, value, kinds)
            thresholds[name][field] = value
        self._filters: list[Any] = [kinds[name](**thresholds[name]) for name in names]

    def __call__(self, texts: Sequence[str]) -> list[str | Rejected]:
        """For each text: the text, which a filter may have edited, or why it is dropped."""
        return [self._judge(text) for text in texts]

    def describe(self) -> dict[str, Any]:
        """What decides, for a manifest: the filters in order, each with all its thresholds."""
        return {
            "version": VERSION,
            "unicode": unicodedata.unidata_version,
            "filters": [
                {"name": each.name, "thresholds": dataclasses.asdict(each)} for each in self._filters
            ],
        }

    def _judge(self, text: str) -> str | Rejected:
        if not self._filters:
            return text
        from data.filters.page import Page

        page = Page(text)
        for each in self._filters:
            verdict = each(page)
            if isinstance(verdict, Rejected):
                return verdict
            page = verdict
        return page.text


def _kind(name: str) -> Callable[..., Any]:
    """The class of the filter called `name`."""
    if name not in FILTERS:
        raise ConfigError(
            f'data.filters: there is no filter "{name}"',
            did_you_mean(name, FILTERS, f"the filters are {', '.join(FILTERS)}", '"{}"'),
        )
    from data.filters.c4 import C4
    from data.filters.fineweb import FineWeb
    from data.filters.gopher_quality import GopherQuality
    from data.filters.gopher_repetition import GopherRepetition

    kinds = {kind.name: kind for kind in (GopherQuality, GopherRepetition, C4, FineWeb)}
    return kinds[name]


def _checked_option(option: str, value: float | bool, kinds: Mapping[str, Any]) -> tuple[str, str]:
    """The filter and the threshold that `option` names."""
    known = {
        f"{name}.{field.name}": field.default
        for name, kind in kinds.items()
        for field in dataclasses.fields(kind)
    }
    if option not in known:
        meant = nearest(option, known)
        raise ConfigError(
            f'data.filter_options: "{option}" is no threshold of the filters that are applied'
            f" ({', '.join(kinds) or 'none'})",
            f'did you mean "{meant}"?'
            if meant
            else "name it FILTER.THRESHOLD, and the filter in data.filters",
        )
    is_switch = isinstance(known[option], bool)
    if is_switch != isinstance(value, bool) or math.isnan(value):
        asked = "true or false" if is_switch else "a number"
        raise ConfigError(f"data.filter_options: {option} is {value!r}", f"give it as {asked}")
    name, _, field = option.partition(".")
    return name, field
