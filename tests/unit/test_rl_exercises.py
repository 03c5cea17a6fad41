"""Tasks whose best answers are known."""

import json
from collections import deque

import pytest

from seedbed.errors import UsageError
from training.rl.exercises import EXERCISES, write
from training.rl.exercises.cartpole import METHODS, outcome
from training.rl.exercises.randomwalks import (
    GOAL,
    LONGEST,
    NODES,
    examples,
    graph,
    optimality,
    shortest,
    tasks,
)
from training.rl.exercises.reasoning import thought_through
from training.rl.rules import accuracy, format_of, within_tags


def test_shortest_paths_are_those_of_a_search():
    found = {GOAL: 1}
    waiting = deque([GOAL])
    while waiting:
        node = waiting.popleft()
        for before in range(NODES):
            if before not in found and node in graph()[before]:
                found[before] = found[node] + 1
                waiting.append(before)
    assert [found[node] for node in range(NODES)] == list(shortest())
    assert max(shortest()) < LONGEST


def test_the_best_path_is_worth_one_and_no_path_nothing():
    """A reward that is wrong at its ends would be learned."""
    rows = list(tasks())
    assert len(rows) == NODES - 1
    prompts, answers = [row["prompt"] for row in rows], [row["response"] for row in rows]
    assert optimality(prompts, answers, rows) == [1.0] * len(rows)
    for bad in ("", " ", " ?", " a a", "a", " z", answers[0][:-2]):
        assert optimality(prompts[:1], [bad], rows[:1]) == [0.0], bad
    # What comes after the goal does not count.
    assert optimality(prompts[:1], [answers[0] + " b c d"], rows[:1]) == [1.0]


def test_a_detour_costs_its_length():
    row = next(row for row in examples() if row["response"].endswith(" a") and 8 < len(row["response"]) < 18)
    best = shortest()[ord(row["prompt"][1]) - ord("a")]
    length = 1 + len(row["response"]) // 2
    expected = (LONGEST - length) / (LONGEST - best)
    assert optimality([row["prompt"]], [row["response"]], [row]) == pytest.approx([expected])


def test_sums_are_right():
    rows = list(EXERCISES["arithmetic"][1](3))
    for row in rows[:50]:
        left, right = row["prompt"].removesuffix(" =").replace(" ", "").split("+")
        assert accuracy(row["response"].replace(" ", ""), str(int(left) + int(right))) == 1


def test_thoughts_lead_to_the_answer():
    """Else a cold start would teach to think wrongly."""
    rows = list(EXERCISES["reasoning"][0](3))
    assert rows[0].keys() == {"prompt", "response"}
    assert thought_through(47, 38) == " <think> 7 + 8 = 1 5 , 4 + 3 + 1 = 8</think><answer> 8 5</answer>"
    assert thought_through(0, 0) == " <think> 0 + 0 = 0</think><answer> 0</answer>"
    for row in rows[:100]:
        left, right = row["prompt"].removesuffix(" =").replace(" ", "").split("+")
        assert format_of(row["response"]) == 1
        assert within_tags(row["response"], "answer").replace(" ", "") == str(int(left) + int(right))
        for column in within_tags(row["response"], "think").replace(" ", "").split(","):
            terms, total = column.split("=")
            assert sum(map(int, terms.split("+"))) == int(total)
    task = next(EXERCISES["reasoning"][1](3))
    assert accuracy(f" <think> 1</think><answer>{task['response']}</answer>", task["response"]) == 1
    assert accuracy(f" <think>{task['response']}</think><answer> 1</answer>", task["response"]) == 0
    for dodge in ("<answer></answer>", "<answer>", "<answer> 1</answer><answer> 2</answer>"):
        assert accuracy(f" <think> 85</think>{dodge} 85", "85") == 0, dodge


@pytest.mark.parametrize("method", METHODS)
def test_the_policy_gradients_of_answers_balance_a_pole(method):
    """A sign that is wrong, or credit that goes to the wrong step, would be seen here in seconds."""
    found = outcome(method, seed=0, iterations=25)
    assert found["after"] > 3 * found["curve"][0], found


@pytest.mark.parametrize("name", EXERCISES)
def test_rows_are_a_function_of_the_seed(tmp_path, name):
    told = [write(name, tmp_path / str(number), seed=number // 2) for number in range(3)]
    texts = [(tmp_path / str(number) / "examples.jsonl").read_text() for number in range(3)]
    assert texts[0] == texts[1] != texts[2]
    assert told[0]["examples"] == len(texts[0].splitlines())
    assert set(json.loads(texts[0].splitlines()[0])) == {"prompt", "response"}
    with pytest.raises(UsageError, match="is not empty"):
        write(name, tmp_path / "0", seed=0)


def test_an_exercise_that_is_none_is_named(tmp_path):
    with pytest.raises(UsageError, match="there is no exercise cartwheels"):
        write("cartwheels", tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()
