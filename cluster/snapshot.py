"""The code that a run was submitted with: copied beside it, and named by commit and difference.

What a run executes is the copy, so that an edit of a checkout while it waits, or between two restarts,
changes nothing in it.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from seedbed.files import write_atomic, write_json

ROOMS = ("seedbed", "data", "models", "training", "evals", "cluster")
OURS = Path(__file__).resolve().parent.parent
FOLDER = "code"
GIT_S = 20.0
MAX_DIFF_BYTES = 16 * 1024**2


def take_snapshot(run_dir: Path, asked_in: Path) -> tuple[Path, dict[str, Any]]:
    """Copy Seedbed's packages to `run_dir`/code; returns (that folder, what `code.json` says of it).

    `code.json` names commit and state of Seedbed's own checkout, if it is one, and of the one around
    `asked_in`, where recipes of the user's own are; `*.diff` beside it hold what was not committed of files
    that git tracks, and the others are named.
    """
    target = run_dir / FOLDER
    for room in ROOMS:
        # Bytecode is copied too: it stays valid, and a start need not compile.
        shutil.copytree(
            OURS / room, target / room, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.tmp")
        )
    record: dict[str, Any] = {"folder": str(target)}
    checkouts = {"seedbed": _checkout(OURS), "asked_in": _checkout(asked_in)}
    if checkouts["asked_in"] == checkouts["seedbed"]:
        del checkouts["asked_in"]
    for name, checkout in checkouts.items():
        if checkout is not None:
            record[name] = _describe(checkout, target / f"{name}.diff")
    write_json(target / "code.json", record)
    return target, record


def snapshot_text(record: dict[str, Any]) -> str:
    """`commit 1234567 with changes to 2 file(s), kept in code/seedbed.diff`."""
    told = []
    for name in ("seedbed", "asked_in"):
        if (found := record.get(name)) is None:
            continue
        text = f"{Path(found['checkout']).name} at commit {(found['commit'] or 'none')[:10]}"
        if found["changed"]:
            text += f", with changes to {len(found['changed'])} file(s), kept in {FOLDER}/{name}.diff"
        if found["untracked"]:
            text += f"; {len(found['untracked'])} file(s) that git does not track are named in code.json"
        told.append(text)
    return "; ".join(told) or "no git checkout"


def _checkout(folder: Path) -> Path | None:
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top.strip()) if top else None


def _describe(checkout: Path, diff_path: Path) -> dict[str, Any]:
    commit = (_git(checkout, "rev-parse", "--verify", "-q", "HEAD") or "").strip()
    status = _git(checkout, "status", "--porcelain") or ""
    untracked = [line[3:] for line in status.splitlines() if line.startswith("??")]
    changed = [line[3:] for line in status.splitlines() if not line.startswith("??")]
    if changed:
        write_atomic(diff_path, (_git(checkout, "diff", "HEAD") or "")[:MAX_DIFF_BYTES])
    return {
        "checkout": str(checkout),
        "commit": commit,
        "dirty": bool(changed or untracked),
        "changed": changed,
        "untracked": untracked,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None without git, or where it has nothing to say."""
    command = ["git", "-c", f"safe.directory={folder}", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
