"""Paths through a graph, learned from random walks: the shortest one to the goal is the best (Chen et al.
2021, "Decision Transformer", section 3; here with the sizes that trlX made usual).

The graph has 21 nodes, from each of which edges lead to every other one with probability 0.1, and to one at
least, so that the goal is reached from all. A walk starts anywhere but at the goal, which is `a`, and ends
there, or after ten nodes. What is written is the nodes, each after a space: prompt " c", response " f b a".
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

NODES, EDGE_PROBABILITY, LONGEST, WALKS, SEED = 21, 0.1, 10, 1000, 1002
GOAL = 0


@lru_cache(maxsize=1)
def graph() -> tuple[tuple[int, ...], ...]:
    """Of each node those that an edge leads to; the same graph always."""
    draw = random.Random(SEED)
    while True:
        edges = [
            tuple(other for other in range(NODES) if other != node and draw.random() < EDGE_PROBABILITY)
            or (draw.choice([other for other in range(NODES) if other != node]),)
            for node in range(NODES)
        ]
        if all(_distances(edges)[node] < LONGEST for node in range(NODES)):
            return tuple(edges)


def _distances(edges: Sequence[Sequence[int]]) -> list[int]:
    """Nodes on the shortest path from each node to the goal, both ends counted; more than all if none."""
    found = [1 if node == GOAL else NODES + 1 for node in range(NODES)]
    for _ in range(NODES):
        for node in range(NODES):
            if node != GOAL:
                found[node] = min(found[node], 1 + min(found[other] for other in edges[node]))
    return found


@lru_cache(maxsize=1)
def shortest() -> tuple[int, ...]:
    """Of each node the nodes on the shortest path to the goal, both ends counted."""
    return tuple(_distances(graph()))


def examples(seed: int = 0) -> Iterator[dict[str, str]]:
    """Random walks."""
    draw = random.Random(SEED + seed)
    for _ in range(WALKS):
        walk = [draw.randrange(1, NODES)]
        while len(walk) < LONGEST and walk[-1] != GOAL:
            walk.append(draw.choice(graph()[walk[-1]]))
        yield {"prompt": _written(walk[:1]), "response": _written(walk[1:])}


def tasks(seed: int = 0) -> Iterator[dict[str, str]]:
    """Every start, with a shortest path."""
    for start in range(1, NODES):
        path = [start]
        while path[-1] != GOAL:
            path.append(min(graph()[path[-1]], key=lambda node: shortest()[node]))
        yield {"prompt": _written(path[:1]), "response": _written(path[1:])}


def optimality(prompts: list[str], answers: list[str], rows: list[dict[str, Any]]) -> list[float]:
    """1 for a shortest path, 0 for one of ten nodes, and for what is no path to the goal."""
    return [_optimality(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def _optimality(prompt: str, answer: str) -> float:
    walk = [ord(name) - ord("a") if len(name) == 1 else -1 for name in (prompt + answer).split(" ")[1:]]
    best = shortest()[walk[0]]
    length = LONGEST
    for place, (node, after) in enumerate(itertools.pairwise(walk)):
        if after not in graph()[node]:
            break
        if after == GOAL:
            length = min(LONGEST, place + 2)
            break
    return (LONGEST - length) / (LONGEST - best)


def _written(walk: Sequence[int]) -> str:
    return "".join(f" {chr(ord('a') + node)}" for node in walk)
