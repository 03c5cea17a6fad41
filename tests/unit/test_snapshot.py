"""What is kept of the code that a run was submitted with."""

import subprocess

from cluster.snapshot import snapshot_text, take_snapshot


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_dirty_tree_is_recorded_with_its_difference(tmp_path):
    """A run could not be told from one of the commit that it names."""
    mine = tmp_path / "mine"
    mine.mkdir()
    git(mine, "init", "-q")
    (mine / "recipe.toml").write_text("[run]\nsteps = 1\n")
    git(mine, "add", ".")
    git(mine, "commit", "-qm", "first")
    (mine / "recipe.toml").write_text("[run]\nsteps = 2\n")
    (mine / "new.toml").write_text("")
    folder, record = take_snapshot(tmp_path / "run", mine)
    found = record["asked_in"]
    assert (found["dirty"], found["changed"], found["untracked"]) == (True, ["recipe.toml"], ["new.toml"])
    assert "+steps = 2" in (folder / "asked_in.diff").read_text()
    assert "with changes to 1 file(s), kept in code/asked_in.diff" in snapshot_text(record)
