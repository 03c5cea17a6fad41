"""How many bytes of tensors are alive, and at most were, as PyTorch's own dispatcher sees them."""

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts what operations inside the `with` allocate, each storage once, until it is freed.

    What existed before (parameters, inputs) is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[StorageWeakRef, int] = {}
        self.peak_bytes = 0

    @property
    def live_bytes(self) -> int:
        self._known = {ref: size for ref, size in self._known.items() if not ref.expired()}
        return sum(self._known.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._note((args, kwargs), counted=False)
        result = func(*args, **(kwargs or {}))
        self._note(result, counted=True)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    def _note(self, values: Any, *, counted: bool) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._known.setdefault(StorageWeakRef(storage), storage.nbytes() if counted else 0)
