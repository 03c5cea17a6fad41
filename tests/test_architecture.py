"""The rules of the house, held by reading every module: imports, forbidden calls, length, words."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "seedbed": (),
    "data": ("seedbed",),
    "models": ("seedbed",),
    "training": ("seedbed", "data", "models"),
    "evals": ("seedbed", "data", "models", "training"),
    "cluster": ("seedbed", "data", "models", "training", "evals"),
}
# With the required packages alone one can train and sample; these are imported where they are used.
HEAVY = {
    "accelerate",
    "datasets",
    "deepspeed",
    "fsspec",
    "gigatoken",
    "lm_eval",
    "mlflow",
    "numba",
    "orjson",
    "pandas",
    "pyarrow",
    "pytorch_optimizer",
    "ray",
    "s3fs",
    "scipy",
    "sentencepiece",
    "transformers",
    "zstandard",
}
# Whatever runs code that a file holds.
FORBIDDEN_MODULES = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "_pickle"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
FORBIDDEN_KEYWORDS = {("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False)}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
# "path" or "path::function" -> why it is longer.
LONGER: dict[str, str] = {}


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the six rooms, parsed."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def imports(path: Path, tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that is imported, by its dotted name, and the statement that does it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(path.parent.parts)[: len(path.parent.parts) - node.level + 1] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield base, node
            # `from torch import distributed` imports torch.distributed.
            yield from ((f"{base}.{alias.name}", node) for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`torch.load` of the expression torch.load; empty for anything else."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: no bodies of functions, nothing for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and dotted(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from at_import(child)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods, with the names of the classes around them."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, child
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(
                    child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
                )

    return walk(tree, "")


def test_every_room_is_read():
    """The tests below would pass over an empty list."""
    assert {path.parts[0] for path in modules()} == set(ROOMS)


def test_imports_go_down():
    """A newcomer could no longer read a room without those above it, nor use it alone."""
    wrong = [
        f"{path}:{statement.lineno}: {path.parts[0]} imports {name}"
        for path, tree in modules().items()
        for name, statement in imports(path, tree)
        if (room := name.split(".")[0]) in ROOMS
        and room != path.parts[0]
        and room not in ROOMS[path.parts[0]]
    ]
    assert wrong == []


def test_data_and_models_know_nothing_of_parallelism():
    """Data and models would need a process group to be used, and a model would stop being mathematics."""
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        if path.parts[0] in ("data", "models")
        for node in ast.walk(tree)
        if dotted(node) == "torch.distributed"
        or (
            isinstance(node, ast.Import | ast.ImportFrom)
            and any(f"{name}.".startswith("torch.distributed.") for name, _ in imports(path, node))
        )
    ]
    assert wrong == []


def test_nothing_that_runs_code_from_a_file():
    """A checkpoint or a dataset from the internet could run a stranger's code."""
    wrong = []
    for path, tree in modules().items():
        wrong += [
            f"{path}:{statement.lineno}: imports {name}"
            for name, statement in imports(path, tree)
            if name.split(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and dotted(node) in FORBIDDEN_CALLS:
                wrong.append(f"{path}:{node.lineno}: {dotted(node)}")
            if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
                given = (node.arg, node.value.value)
                wrong += [f"{path}:{node.value.lineno}: {given}"] if given in FORBIDDEN_KEYWORDS else []
    assert wrong == []


def test_heavy_packages_are_imported_where_they_are_used():
    """A user without an extra could not train, and one with all of them would wait for each."""
    wrong = [
        f"{path}:{statement.lineno}: {name}"
        for path, tree in modules().items()
        for node in at_import(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name, statement in imports(path, node)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_every_module_says_what_it_is_for():
    """A newcomer would have to read a file to learn whether to read it."""
    assert [str(path) for path, tree in modules().items() if not ast.get_docstring(tree)] == []


def test_public_functions_are_annotated():
    """A reader, and the type checker, would have to guess what a function takes."""
    wrong = []
    for path, tree in modules().items():
        for name, function in functions(tree):
            if any(part.startswith("_") and part != "__init__" for part in name.split(".")):
                continue
            every = function.args
            arguments = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
            missing = [
                argument.arg
                for argument in arguments
                if argument and not argument.annotation and argument.arg not in ("self", "cls")
            ]
            if missing or function.returns is None:
                wrong.append(f"{path}:{function.lineno}: {name}({', '.join(missing)})")
    assert wrong == []


def test_files_and_functions_stay_readable():
    """Two ideas in one place, and nobody reads either."""
    wrong = set()
    for path, tree in modules().items():
        num_lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        if num_lines > MAX_FILE_LINES:
            wrong.add(str(path))
        for name, function in functions(tree):
            if (function.end_lineno or 0) - function.lineno + 1 > MAX_FUNCTION_LINES:
                wrong.add(f"{path}::{name}")
    assert wrong == set(LONGER), "longer than the rule, or listed as longer and not so any more"


def test_help_answers_at_once_and_without_torch():
    """A user would wait for seconds to read a page of text."""
    script = (
        "import sys, cluster.main\nprint(*sorted(set(sys.modules) & {'torch', 'mlflow', 'numpy', 'pandas'}))"
    )
    loaded = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    assert "torch" not in loaded.stdout.split()

    command = Path(sys.executable).with_name("seedbed")
    times = []
    # The least of several: a busy machine makes some slow, and none fast.
    for _ in range(7):
        started = time.perf_counter()
        shown = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60)
        times.append(time.perf_counter() - started)
        assert shown.returncode == 0, shown.stderr
        assert "Usage" in shown.stdout
    assert min(times) <= 0.3, times


def test_no_file_speaks_of_the_machine_it_was_written_on():
    """A user would meet paths and addresses that exist nowhere else."""
    # Put together here, so that this file does not hold them.
    patterns = ["/" + "work/", "file://" + "/opt", "/root" + "/.", "/" + "opt/wheels", "index" + "-url http"]
    arguments = [part for pattern in patterns for part in ("-e", pattern)]
    found = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "grep", "-nIF", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout.splitlines() == []
    assert found.returncode == 1, found.stderr  # 1: searched, and found nothing
