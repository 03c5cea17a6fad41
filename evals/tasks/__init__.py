"""Tasks: TOML files that say what is asked, of which items, and how the answers are judged.

definition.py  what a task file may say, and errors that name its file, line and field
items.py       an item, the digest of a set of items, what becomes of empty and repeated ones
local.py       items made of the run's own held-out texts, or of Python's standard library
doctests.py    functions to complete, with the examples of their docstrings as tests
formats.py     files of published benchmarks -> items
prompts.py     items -> prompts: templates, few-shot examples
running.py     a task on a scorer -> what it found, item by item
"""

from evals.tasks.definition import TaskDefinition, load_task, task_names
from evals.tasks.items import TaskItem

__all__ = ["TaskDefinition", "TaskItem", "load_task", "task_names"]
