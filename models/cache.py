"""What the layers remember of the tokens so far while texts are being generated.

A cache has slots, one for each text; texts in neighbouring slots may be of any length. Memory is taken for
the tokens that there are, and grows by blocks. A forward pass is one row of tokens, some of each of several
texts (one of each while decoding, whole prompts when they are read), so that nothing is ever padded; its view
of the cache knows which slot each belongs to, and lets it attend to what that slot holds and nothing else.

Shapes: M slots, N new tokens of all texts, B texts of a forward pass, H heads, G heads of what is cached, S
tokens of a text, T new ones, K size of a cached vector, V of a value.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import ModelConfig
from models.masks import attention_mask, ragged_mask
from models.scores import attend

BLOCK = 64
"""Tokens that a cache grows by at least."""
ALIGNMENT = 16
"""Slots start at multiples of so many numbers: how a sum is rounded may depend on where in memory it lies."""


class Cache:
    """Keys and values, or latents, of `num_slots` texts.

    With `padded`, texts that decode attend together, to as many tokens as the longest has; otherwise (on a
    CPU, unless said) each by itself to its own: nothing is wasted, and no number depends on the neighbours.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_slots: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        padded: bool | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.padded = device.type != "cpu" if padded is None else padded
        self.lengths = [0] * num_slots
        """Tokens that each slot holds."""
        self.capacity = 0
        """Tokens that each slot has memory for."""
        self.buffers_MGSK = [
            [torch.zeros(num_slots, G, 0, K, device=device, dtype=dtype) for G, K in config.cached_per_token]
            for _ in range(config.num_layers)
        ]

    @property
    def shares_calls(self) -> bool:
        """Whether slots of one length may attend in one call without a bit of difference: no copy moves their
        sums in memory, and no thread but one has them."""
        is_aligned = all(K % ALIGNMENT == 0 for _, K in self.config.cached_per_token)
        return is_aligned and not self.padded and torch.get_num_threads() == 1

    def extend(self, slots: Sequence[int], counts: Sequence[int]) -> "CacheView":
        """Make `slots` longer by `counts` tokens each; the view is what `model(tokens_1N, view)` fills."""
        past = [self.lengths[slot] for slot in slots]
        self.reserve(max(length + count for length, count in zip(past, counts, strict=True)))
        for slot, count in zip(slots, counts, strict=True):
            self.lengths[slot] += count
        return CacheView(self, slots, past, counts)

    def clear(self, slot: int) -> None:
        """Forget the text of `slot`."""
        self.lengths[slot] = 0

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Let `targets` hold what `sources` hold now; the two may overlap."""
        lengths = [self.lengths[slot] for slot in sources]
        S = max(lengths)
        index_B = torch.tensor(sources, device=self.device)
        # On a CPU whole slots are moved several times as fast one by one.
        apart = self.device.type == "cpu" and set(sources).isdisjoint(targets)
        for layer in self.buffers_MGSK:
            for buffer_MGSK in layer:
                if not apart:
                    buffer_MGSK[targets, :, :S] = buffer_MGSK[index_B, :, :S]
                    continue
                for source, target, length in zip(sources, targets, lengths, strict=True):
                    buffer_MGSK[target, :, :length] = buffer_MGSK[source, :, :length]
        for slot, length in zip(targets, lengths, strict=True):
            self.lengths[slot] = length

    def begin_with(self, other: "Cache", slot: int = 0) -> None:
        """Let every slot hold what `slot` of another cache of the same model holds."""
        length = other.lengths[slot]
        self.reserve(length)
        for own, theirs in zip(self.buffers_MGSK, other.buffers_MGSK, strict=True):
            for buffer_MGSK, other_MGSK in zip(own, theirs, strict=True):
                buffer_MGSK[:, :, :length] = other_MGSK[slot, :, :length]
        self.lengths = [length] * len(self.lengths)

    def reserve(self, tokens: int) -> None:
        """Have memory for so many of every slot; said first, it spares the cache to grow by moving."""
        if tokens <= self.capacity:
            return
        # By half at least, so that a text of n tokens is moved log n times; never past the context.
        wanted = _up(max(tokens, self.capacity * 3 // 2), BLOCK)
        self.capacity = max(tokens, min(wanted, _up(self.config.context, ALIGNMENT)))
        for layer in self.buffers_MGSK:
            for index, old_MGSK in enumerate(layer):
                M, G, S, K = old_MGSK.shape
                # Zeros where texts attend together: to what a mask hides, but a NaN would show through.
                new = old_MGSK.new_zeros if self.padded else old_MGSK.new_empty
                layer[index] = new(M, G, self.capacity, K)
                layer[index][:, :, :S] = old_MGSK


class Segment(NamedTuple):
    """New tokens of one slot, which lie side by side in a forward pass."""

    slot: int
    past: int
    """Tokens that the slot had before."""
    start: int
    stop: int
    """Where they lie in the forward pass."""
    mask: Tensor | None
    """What they may see, as `attention_mask` has it."""


class Group(NamedTuple):
    """Slots of one length, each of which gets one token; places that lie side by side are slices."""

    rows: Tensor | slice
    """Where their tokens lie in the forward pass."""
    slots: Tensor | slice
    length: int
    """Tokens of each, the new one too."""
    mask: Tensor | None


class CacheView:
    """Which slots the tokens of one forward pass belong to, and where in them they come."""

    def __init__(self, cache: Cache, slots: Sequence[int], past: list[int], counts: Sequence[int]) -> None:
        config, device = cache.config, cache.device
        masks = [attention_mask(config, *length, device) for length in zip(past, counts, strict=True)]
        stops = list(accumulate(counts))
        starts = [stop - count for stop, count in zip(stops, counts, strict=True)]
        self.segments = [Segment(*each) for each in zip(slots, past, starts, stops, masks, strict=True)]
        self.window = config.window
        self.is_fresh = not any(past)
        """The new tokens are the first ones of their slots."""
        self.one_each = max(counts) == 1 < len(slots)
        self.groups: list[Group] = []
        """Those that attend at once; empty where each does alone."""
        if self.one_each and cache.shares_calls:
            self.groups = _groups(self.segments, device)
        self.slots_B = torch.tensor(slots, device=device)
        self.past_B = torch.tensor(past, device=device)
        positions = [torch.arange(start, start + count) for start, count in zip(past, counts, strict=True)]
        self.positions_1N = torch.cat(positions)[None].to(device)
        self.mask_B1TS: Tensor | None = None
        """For all rows, where they attend together."""
        if cache.padded and self.one_each:
            self.mask_B1TS = ragged_mask(config, self.past_B[:, None], max(past) + 1)
        self.layers = [LayerView(self, buffers) for buffers in cache.buffers_MGSK]


class LayerView:
    """The same, of one layer: what its attention writes, then reads."""

    def __init__(self, view: CacheView, buffers_MGSK: list[Tensor]) -> None:
        self.view, self.buffers_MGSK = view, buffers_MGSK
        self.is_fresh = view.is_fresh

    def write(self, *new_1GNK: Tensor) -> None:
        """Append the new tokens, one tensor for each buffer."""
        view = self.view
        for buffer_MGSK, tokens_1GNK in zip(self.buffers_MGSK, new_1GNK, strict=True):
            if view.one_each:
                buffer_MGSK[view.slots_B, :, view.past_B] = tokens_1GNK[0].transpose(0, 1)
                continue
            for slot, past, start, stop, _ in view.segments:
                buffer_MGSK[slot, :, past : past + stop - start] = tokens_1GNK[0, :, start:stop]

    def attend(self, query_1HNK: Tensor, scale: float | None, value_size: int | None = None) -> Tensor:
        """[1, H, N, V]: each token over its slot, up to itself.

        Of a single buffer, the first `value_size` numbers of a cached vector are its value.
        """
        key_MGSK, value_MGSV = self.buffers_MGSK[0], self.buffers_MGSK[-1]
        if value_size is not None:
            value_MGSV = value_MGSV[..., :value_size]
        if self.view.mask_B1TS is not None:
            return self._attend_together(query_1HNK, key_MGSK, value_MGSV, scale)
        if self.view.groups:
            return self._attend_in_groups(query_1HNK, key_MGSK, value_MGSV, scale)
        mixed = []
        for slot, past, start, stop, mask in self.view.segments:
            first, end = 0, past + stop - start
            if stop - start == 1 and 0 < self.view.window < end:
                first, mask = end - self.view.window, None if mask is None else mask[..., -self.view.window :]
            own_key, own_value = (b[slot : slot + 1, :, first:end] for b in (key_MGSK, value_MGSV))
            # A copy lies aligned in memory, wherever in the forward pass it was.
            mixed.append(attend(query_1HNK[:, :, start:stop].clone(), own_key, own_value, mask, scale))
        return torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0]

    def attend_new(
        self, query_1HNK: Tensor, key_1HNK: Tensor, value_1HNV: Tensor, scale: float | None
    ) -> Tensor:
        """[1, H, N, V]: the same among first tokens, by keys and values that are not what is cached."""
        mixed = []
        for _, _, start, stop, mask in self.view.segments:
            query, key, value = (x[:, :, start:stop].clone() for x in (query_1HNK, key_1HNK, value_1HNV))
            mixed.append(attend(query, key, value, mask, scale))
        return torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0]

    def _attend_in_groups(
        self, query_1HNK: Tensor, key_MGSK: Tensor, value_MGSV: Tensor, scale: float | None
    ) -> Tensor:
        """`attend`, of one token each, with one call for all slots of a length: each is computed as alone."""
        view = self.view
        query_NH1K = query_1HNK[0].transpose(0, 1).unsqueeze(2)
        mixed_NH1V = query_NH1K.new_empty(*query_NH1K.shape[:3], value_MGSV.shape[-1])
        for rows, slots, end, mask in view.groups:
            first = 0
            if 0 < view.window < end:
                first, mask = end - view.window, None if mask is None else mask[..., -view.window :]
            own_key, own_value = (b[slots, :, first:end] for b in (key_MGSK, value_MGSV))
            mixed_NH1V[rows] = attend(query_NH1K[rows].contiguous(), own_key, own_value, mask, scale)
        return mixed_NH1V.squeeze(2).transpose(0, 1)[None]

    def _attend_together(
        self, query_1HNK: Tensor, key_MGSK: Tensor, value_MGSV: Tensor, scale: float | None
    ) -> Tensor:
        view = self.view
        B, S = len(view.segments), 1 + max(segment.past for segment in view.segments)
        # A slice is not copied; slots in another order are.
        first = all(segment.slot == row for row, segment in enumerate(view.segments))
        rows = slice(0, B) if first else view.slots_B
        query_BH1K = query_1HNK[0].transpose(0, 1).unsqueeze(2)
        mixed_BH1V = attend(query_BH1K, key_MGSK[rows, :, :S], value_MGSV[rows, :, :S], view.mask_B1TS, scale)
        return mixed_BH1V.squeeze(2).transpose(0, 1)[None]


def _groups(segments: list[Segment], device: torch.device) -> list[Group]:
    """Of segments with one token each; none when no two slots are of one length."""
    alike: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        alike.setdefault(segment.past, []).append(number)
    if len(alike) == len(segments):
        return []
    return [
        Group(
            _places(numbers, device),
            _places([segments[number].slot for number in numbers], device),
            past + 1,
            segments[numbers[0]].mask,
        )
        for past, numbers in alike.items()
    ]


def _places(numbers: list[int], device: torch.device) -> Tensor | slice:
    first, stop = numbers[0], numbers[0] + len(numbers)
    return slice(first, stop) if numbers == list(range(first, stop)) else torch.tensor(numbers, device=device)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
