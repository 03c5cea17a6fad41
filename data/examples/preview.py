"""Examples as a person should see them before a run is spent on them: their text, and what of it is
trained."""

from typing import Any

from data.examples.table import ExampleTable, is_examples
from data.order import Permutation
from data.shards import Dataset
from seedbed.errors import UsageError
from seedbed.randomness import seed64


def preview(path: str, split: str = "train", count: int = 3, first: int | None = None) -> dict[str, Any]:
    """`count` examples of a dataset: chosen by hash, or from number `first` on.

    Each has its candidates, each candidate its pieces {"text", "tokens", "trained", "start"}, decoded from
    the ids that are trained on, and `spans` in tokens. UsageError when the dataset is of running text.
    """
    dataset = Dataset.open(path)
    if not is_examples(dataset):
        raise UsageError(
            f"{path} holds running text: all of it is trained", "seedbed data inspect shows documents of it"
        )
    table, tokenizer = ExampleTable.of(dataset, split), dataset.tokenizer()
    count = min(count, table.num_examples)
    if first is not None:
        numbers = list(range(first, min(first + count, table.num_examples)))
    elif count:
        order = Permutation(table.num_examples, seed64(0, "preview", split))
        numbers = sorted(order(place) for place in range(count))
    else:
        numbers = []
    shown = []
    for number in numbers:
        candidates = []
        for sequence in range(int(table.firsts[number]), int(table.firsts[number + 1])):
            ids = table.tokens(sequence).tolist()
            spans = table.spans_of(sequence).tolist()
            pieces = [
                {
                    "start": start,
                    "tokens": stop - start,
                    "trained": is_trained,
                    "text": tokenizer.decode(ids[start:stop]),
                }
                for start, stop, is_trained in _pieces(spans, len(ids))
            ]
            rank = int(table.ranks[sequence])
            candidates.append({"rank": rank, "tokens": len(ids), "spans": spans, "pieces": pieces})
        shown.append(
            {
                "example": number,
                "margin": float(table.margins[table.firsts[number]]),
                "candidates": candidates,
            }
        )
    about = dataset.manifest["examples"]
    return {
        "path": dataset.location.root,
        "split": split,
        "format": about["format"],
        "template": about["template"],
        "counts": about["splits"],
        "drops": dataset.manifest["drops"],
        "examples": shown,
    }


def _pieces(spans: list[list[int]], length: int) -> list[tuple[int, int, bool]]:
    pieces, at = [], 0
    for start, stop in spans:
        pieces += [(at, start, False), (start, stop, True)]
        at = stop
    return [piece for piece in [*pieces, (at, length, False)] if piece[0] < piece[1]]
