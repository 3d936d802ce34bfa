"""What a run is recognised by when it goes on, and what a failed start leaves."""

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import soundfile
import torch

from flexiast.data.fingerprint import contents_fingerprint
from flexiast.data.manifest import read_manifest
from flexiast.data.pack import pack
from flexiast.errors import CheckpointError, ConfigError, DataError
from flexiast.traintest.bad_files import BadFiles
from flexiast.traintest.checkpointing import CheckpointStore, weights_hash
from flexiast.traintest.run_directory import Data, RunDirectory
from flexiast.traintest.train import train
from tests.sounds import write_folder
from tests.traintest.test_train import break_clip, config, records

SETTINGS = {"epochs": 1, "data": {"train": "sounds"}, "distill": {"teacher": None}}
DATA = Data(["names"], ["contents"], None)


def saved(directory: RunDirectory, step: int, **changes: object) -> None:
    state = {"step": step, "config": json.dumps(SETTINGS), "log_bytes": 0, "model": {}, **DATA.state()}
    directory.states.save(step, state | changes)


def test_a_state_without_a_step_is_no_state(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, 2)
    saved(directory, 0)
    assert directory.resumable_state(SETTINGS | {"epochs": 2}, DATA, override=False) is None
    saved(directory, 1)
    with pytest.raises(ConfigError, match="epochs: 1 -> 2"):
        directory.resumable_state(SETTINGS | {"epochs": 2}, DATA, override=False)


def test_contents_and_teacher_are_compared_unless_the_state_is_older(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, 2)
    saved(directory, 1)
    for data, said in (
        (dataclasses.replace(DATA, contents=["other"]), "the contents of clips of sounds"),
        (dataclasses.replace(DATA, teacher="other"), "the teacher: the weights of None"),
        (dataclasses.replace(DATA, fingerprints=["other"]), "sounds or its validation data have changed"),
    ):
        with pytest.raises(ConfigError, match=said):
            directory.resumable_state(SETTINGS, data, override=False)
        assert directory.resumable_state(SETTINGS, data, override=True)
    older = {"step": 2, "config": json.dumps(SETTINGS), "log_bytes": 0, "model": {}, "data": ["names"]}
    directory.states.save(2, older)
    assert directory.resumable_state(SETTINGS, dataclasses.replace(DATA, teacher="t"), override=False)["step"] == 2


def test_a_state_from_before_rectangles_were_chosen_goes_on(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, 2)
    before, now = {"draw": "uniform", "rectangles": False}, {"draw": None, "rectangles": "auto", "dropout": 0.0}
    saved(directory, 1, config=json.dumps(SETTINGS | {"patches": before}))
    assert directory.resumable_state(SETTINGS | {"patches": now}, DATA, override=False)["step"] == 1
    with pytest.raises(ConfigError, match=r"patches.draw: null -> \"coarse\""):
        directory.resumable_state(SETTINGS | {"patches": now | {"draw": "coarse"}}, DATA, override=False)
    with pytest.raises(ConfigError, match=r"patches.dropout: 0.0 -> 0.67"):  # it had heard every patch
        directory.resumable_state(SETTINGS | {"patches": now | {"dropout": 0.67}}, DATA, override=False)


def test_a_state_from_before_a_setting_goes_on_with_its_default(tmp_path: Path) -> None:
    directory, now = RunDirectory(tmp_path, 2), SETTINGS | {"augment": {"roll": 4, "stretch": 0.0}, "ema": 0.0}
    saved(directory, 1, config=json.dumps(SETTINGS | {"augment": {"roll": 4}}))
    assert directory.resumable_state(now, DATA, override=False)["step"] == 1
    with pytest.raises(ConfigError, match=r"augment.stretch: 0.0 -> 0.1; ema: 0.0 -> 0.5"):
        directory.resumable_state(now | {"augment": {"roll": 4, "stretch": 0.1}, "ema": 0.5}, DATA, override=False)


NESTED = '{"a": ' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    ("field", "value"),
    [("config", 3), ("config", "[]"), ("config", "{"), ("config", NESTED), ("log_bytes", -1), ("model", 1)],
    ids=["number", "list", "cut", "nested", "log_bytes", "model"],
)
def test_a_state_with_hostile_fields_is_refused(tmp_path: Path, field: str, value: object) -> None:
    directory = RunDirectory(tmp_path, 2)
    saved(directory, 1, **{field: value})
    with pytest.raises(CheckpointError, match="checkpoints: the newest state is none of a run"):
        directory.resumable_state(SETTINGS, DATA, override=True)


def test_a_copy_of_a_state_is_not_taken_for_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(3, {"step": 3})
    shutil.copy(tmp_path / "step-00000003.pt", tmp_path / "step-best.pt")
    store.save(4, {"step": 4})
    assert store.latest()["step"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004.pt", "step-best.pt"]


def test_contents_are_those_of_the_clips_wherever_they_lie(tmp_path: Path) -> None:
    manifest = read_manifest(write_folder(tmp_path / "sounds", 2, seed=0))
    before = contents_fingerprint(manifest)
    assert contents_fingerprint(pack(manifest, tmp_path / "shards", progress=False)) == before
    path = manifest.clips[3].path
    samples, rate = soundfile.read(path, dtype="int16")
    samples[8000] += 1
    size = path.stat().st_size
    soundfile.write(path, samples, rate)
    assert path.stat().st_size == size
    assert contents_fingerprint(manifest) != before
    path.unlink()
    assert len(contents_fingerprint(manifest)) == 64


def test_the_hash_of_weights_knows_names_and_values() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(other)
    with torch.no_grad():
        other.bias[0] += 1e-3
    assert weights_hash(one) != weights_hash(other)


def test_bad_files_are_kept_by_name(sounds: Path, tmp_path: Path) -> None:
    manifest = read_manifest(sounds / "train")
    gone, there = (str(manifest.clips[i].path) for i in (0, 1))
    shorter = dataclasses.replace(manifest, clips=manifest.clips[1:])
    bad = BadFiles(shorter, config(sounds, tmp_path).data, tmp_path / "bad_files.csv")
    bad.restore({"bad_files": {gone: "removed since", there: "broken"}})
    assert bad.reasons == {there: "broken"}
    bad.restore({"bad_files": {0: "of an older state"}})
    assert 0 not in bad.reasons


def test_a_failed_start_does_not_refuse_the_corrected_command(tmp_path: Path, caplog) -> None:
    write_folder(tmp_path / "train", 2, seed=0)
    (tmp_path / "val").symlink_to(tmp_path / "train")
    broken = sorted((tmp_path / "train").rglob("*.wav"))[:7]
    good = [path.read_bytes() for path in broken]
    for path in broken:
        break_clip(path)
    run = config(tmp_path, tmp_path / "run", epochs=0.5)
    with pytest.raises(DataError, match="clips are unusable"):
        train(run, progress=False)
    leftover = tmp_path / "run" / "model.safetensors.1-ab.part"
    leftover.touch()
    for path, content in zip(broken, good, strict=True):
        path.write_bytes(content)
    train(dataclasses.replace(run, epochs=1, seed=3), progress=False)
    assert records(tmp_path / "run")[-1]["step"] == 1
    assert json.loads((tmp_path / "run" / "train_config.json").read_text())["seed"] == 3
    assert not {"bad_files.csv", leftover.name, ".lock"} & set(os.listdir(tmp_path / "run"))

    # --override goes on with other settings and says so in train_config.json.
    caplog.set_level(logging.INFO)
    train(dataclasses.replace(run, epochs=2, seed=3, override=True), progress=False)
    assert json.loads((tmp_path / "run" / "train_config.json").read_text())["epochs"] == 2
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"trained to its end, but its model\.safetensors is gone"):
        train(dataclasses.replace(run, epochs=2, seed=3), progress=False)
