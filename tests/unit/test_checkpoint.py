"""Checkpoints on disk: nothing damaged, mixed or foreign is ever loaded."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from seedbed.errors import CheckpointError, DamagedError, Unreadable
from seedbed.files import digest_of
from training.checkpoint import layout
from training.checkpoint.reader import Checkpoint, compare
from training.checkpoint.writer import Saver, SaveResult
from training.engines.base import Shard

SHAPES = {"model/a.weight": (7, 6), "model/b.bias": (5,), "optimizer/a.weight/exp_avg": (7, 6)}


def tensors(seed: int) -> dict[str, torch.Tensor]:
    random_ = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=random_) for name, shape in SHAPES.items()}
    return {**made, "optimizer/a.weight/step": torch.tensor(float(seed))}


def shards_of(values: dict[str, torch.Tensor], rank: int, num_ranks: int) -> list[Shard]:
    """Rows dealt out as FSDP does: in chunks of ceil(rows / ranks)."""
    found = []
    for name, value in values.items():
        if value.ndim == 0:
            if rank == 0:
                found.append(Shard(name, value, (), ()))
            continue
        chunk = -(-len(value) // num_ranks)
        low = min(rank * chunk, len(value))
        local = value[low : low + chunk]
        found.append(Shard(name, local, tuple(value.shape), (low, *[0] * (value.ndim - 1))))
    return found


def save(run: Path, step: int, *, num_ranks: int = 2, seed: int = 0, on_done=lambda result: None) -> Path:
    """One step written by `num_ranks` real savers at once."""
    savers = [
        Saver(run, rank, num_ranks, "abc", {"config.toml": b"x = 1\n"}, on_done) for rank in range(num_ranks)
    ]
    for saver in savers:
        shards = shards_of(tensors(seed), saver.rank, num_ranks)
        saver.save(shards, {"step": step, "position": step * 8, "world": {"num_ranks": num_ranks}})
    for saver in savers:
        saver.wait()
    return layout.step_dir(run, step)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_a_checkpoint_gives_back_what_was_saved_whoever_wrote_it(tmp_path, num_ranks):
    """Weights would change by being saved."""
    checkpoint = Checkpoint.open(save(tmp_path, 4, num_ranks=num_ranks))
    checkpoint.verify()
    for name, value in tensors(0).items():
        assert torch.equal(checkpoint.read(name), value)
    assert checkpoint.read_file("config.toml") == b"x = 1\n"
    assert checkpoint.position == 32


def test_the_hash_is_of_the_values_alone(tmp_path):
    """Equal runs on different machines could not be recognised as equal."""
    hashes = set()
    for ranks in (1, 2, 3):
        checkpoint = Checkpoint.open(save(tmp_path / str(ranks), 4, num_ranks=ranks))
        hashes.add((checkpoint.hash(), checkpoint.hash(optimizer=True)))
    other = Checkpoint.open(save(tmp_path / "other", 4, seed=1))
    assert len(hashes) == 1
    assert other.hash() not in {model for model, _ in hashes}
    assert len({*next(iter(hashes)), other.hash(optimizer=True)}) == 3


def test_any_part_of_a_tensor_can_be_read(tmp_path):
    """Another number of ranks could not load the checkpoint."""
    checkpoint = Checkpoint.open(save(tmp_path, 4, num_ranks=3))
    whole = tensors(0)["model/a.weight"]
    for low in range(8):
        for rows in range(8 - low):
            part = checkpoint.read("model/a.weight", (7, 6), (low, 0), (rows, 6))
            assert torch.equal(part, whole[low : low + rows])
    assert torch.equal(checkpoint.read("model/a.weight", (7, 6), (2, 1), (4, 3)), whole[2:6, 1:4])


def test_the_files_open_in_safetensors_itself(tmp_path):
    """Users could not read their weights with other tools."""
    path = save(tmp_path, 4, num_ranks=2)
    loaded = safetensors.torch.load_file(path / "rank-1.safetensors")
    assert torch.equal(loaded["model/a.weight"], tensors(0)["model/a.weight"][4:])


def test_200_bit_flips_are_all_noticed(tmp_path):
    """A damaged checkpoint would be loaded silently."""
    path = save(tmp_path, 4)
    names = [f.name for f in sorted(path.iterdir())]
    assert "manifest.json" in names
    draw, silent = random.Random(0), []
    for trial in range(200):
        file = path / names[trial % len(names)]
        good = file.read_bytes()
        bad = bytearray(good)
        place = draw.randrange(len(bad))
        bad[place] ^= 1 << draw.randrange(8)
        file.write_bytes(bad)
        try:
            Checkpoint.open(path).verify()
            silent.append((file.name, place))
        except CheckpointError:
            pass
        file.write_bytes(good)
    assert silent == []
    Checkpoint.open(path).verify()


def test_reading_alone_notices_a_flipped_bit(tmp_path):
    """Only an explicit `verify` would find the damage."""
    path = save(tmp_path, 4)
    file = path / "rank-0.safetensors"
    bad = bytearray(file.read_bytes())
    bad[-3] ^= 4
    file.write_bytes(bad)
    with pytest.raises(CheckpointError, match=r"rank-0\.safetensors.*SHA-256"):
        Checkpoint.open(path).read("model/a.weight")


@pytest.mark.parametrize("damage", ["truncate", "delete", "zero page", "shard of another step", "manifest"])
def test_damaged_files_are_refused_by_name(tmp_path, damage):
    path, other = save(tmp_path, 4), save(tmp_path, 5, seed=1)
    file = path / ("manifest.json" if damage == "manifest" else "rank-1.safetensors")
    if damage in ("truncate", "manifest"):
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "delete":
        file.unlink()
    elif damage == "zero page":
        file.write_bytes(bytes(file.stat().st_size))
    else:
        shutil.copy(other / file.name, file)
    with pytest.raises(CheckpointError, match=file.name):
        Checkpoint.open(path).verify()


def test_a_forged_manifest_is_refused(tmp_path):
    path = save(tmp_path, 4)
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["position"] = 0
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="digest"):
        Checkpoint.open(path)
    manifest["version"] = 99
    manifest["digest"] = digest_of({k: v for k, v in manifest.items() if k != "digest"})
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="upgrade"):
        Checkpoint.open(path)


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname"])
def test_a_manifest_cannot_point_outside_its_directory(tmp_path, name):
    """A forged checkpoint could read any file of the user's."""
    path = save(tmp_path, 4)
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["files"][0]["name"] = name
    manifest["digest"] = digest_of({k: v for k, v in manifest.items() if k != "digest"})
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside"):
        Checkpoint.open(path)


def test_another_model_is_refused_by_the_parameter_that_differs(tmp_path):
    checkpoint = Checkpoint.open(save(tmp_path, 4))
    with pytest.raises(CheckpointError, match=r"a\.weight.*\[7, 6\].*\[7, 8\]"):
        checkpoint.read("model/a.weight", (7, 8))
    with pytest.raises(CheckpointError, match=r"no tensor 'model/c\.weight'"):
        checkpoint.read("model/c.weight")


def test_an_unfinished_step_does_not_exist(tmp_path):
    """A crash while saving would leave something that looks like a checkpoint."""
    path = save(tmp_path, 4)
    (path / "manifest.json").unlink()
    save(tmp_path, 3)
    temporary = layout.temporary_dir(tmp_path, 9, "f00")
    temporary.mkdir()
    assert layout.list_steps(tmp_path) == [3]
    layout.remove_leftovers(tmp_path)
    assert not temporary.exists()


def test_a_save_that_fails_on_one_rank_leaves_nothing_and_does_not_wait(tmp_path):
    """Training would hang, or a checkpoint without one rank's part would be committed."""
    done: list[SaveResult] = []
    first = Saver(tmp_path, 0, 2, "abc", {}, done.append)
    second = Saver(tmp_path, 1, 2, "abc", {}, done.append)
    temporary = layout.temporary_dir(tmp_path, 4, "abc")
    temporary.mkdir(parents=True)
    # What is in the way of rank 1's file makes its write fail, as a full disk would.
    (temporary / "rank-1.safetensors").mkdir()
    for saver in (first, second):
        saver.save(shards_of(tensors(0), saver.rank, 2), {"step": 4, "position": 0})
    second.wait()
    assert second.own_failure
    first.abort()
    first.wait()
    assert [bool(result.error) for result in done] == [True]
    assert layout.list_steps(tmp_path) == []
    first.remove_leftovers()
    assert not temporary.exists()


def test_retention_keeps_the_newest_the_best_and_every_mth(tmp_path):
    for step in range(1, 10):
        save(tmp_path, step, num_ranks=1)
    layout.abandon_after(tmp_path, 8, attempt=3)
    assert layout.list_steps(tmp_path)[-1] == 8
    layout.retain(tmp_path, keep=2, keep_every=4, needed=[3])
    assert layout.list_steps(tmp_path) == [3, 4, 7, 8]
    assert (layout.checkpoints_dir(tmp_path) / "abandoned-3-step-9").exists()
    save(tmp_path, 9, num_ranks=1)
    layout.retain(tmp_path, keep=2, keep_every=0, needed=[])
    assert layout.list_steps(tmp_path) == [8, 9]
    assert not (layout.checkpoints_dir(tmp_path) / "abandoned-3-step-9").exists()


def test_differences_are_named_and_measured(tmp_path):
    left, right = Checkpoint.open(save(tmp_path / "a", 4)), Checkpoint.open(save(tmp_path / "b", 4, seed=1))
    assert list(compare(left, left, optimizer=True)) == []
    rows = list(compare(left, right))
    assert [row["tensor"] for row in rows] == ["model/a.weight", "model/b.bias"]
    gap = (tensors(0)["model/b.bias"] - tensors(1)["model/b.bias"]).abs().max()
    assert rows[1]["largest"] == pytest.approx(float(gap))


def test_a_newer_format_is_refused_and_not_called_damaged(tmp_path):
    """An older installation would put a sound checkpoint aside, and begin again from an older one."""
    path = save(tmp_path, 4)
    body = json.loads((path / "manifest.json").read_bytes()) | {"version": 99}
    body.pop("digest")
    (path / "manifest.json").write_text(json.dumps({**body, "digest": digest_of(body)}))
    with pytest.raises(CheckpointError, match=r"format version 99.* reads up to") as caught:
        Checkpoint.open(path)
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("name", ["manifest.json", "rank-0.safetensors"])
def test_what_may_not_be_read_is_refused_and_not_called_damaged(tmp_path, name):
    """A wrong owner would cost all checkpoints, one after another: each would be put aside as damaged."""
    path = save(tmp_path, 4)
    (path / name).chmod(0)
    path.parent.chmod(0o755)
    path.chmod(0o755)
    # Root reads everything; and nobody may look into the folders of pytest, but for the one it is in.
    before, is_root = Path.cwd(), os.geteuid() == 0
    os.chdir(path.parent)
    try:
        if is_root:
            os.seteuid(65534)
        with pytest.raises(Unreadable, match=rf"{name} cannot be read: Permission denied"):
            Checkpoint.open(Path(path.name)).verify()
    finally:
        if is_root:
            os.seteuid(0)
        os.chdir(before)


def test_a_step_that_lies_elsewhere_is_refused(tmp_path):
    """What a link points to may be changed by whoever owns it, under a run that has proved it."""
    path = save(tmp_path / "elsewhere", 4)
    here = layout.step_dir(tmp_path / "run", 4)
    here.parent.mkdir(parents=True)
    here.symlink_to(path)
    with pytest.raises(CheckpointError, match="is a symbolic link to"):
        Checkpoint.open(here)
