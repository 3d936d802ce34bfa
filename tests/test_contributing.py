"""What CONTRIBUTING.md says: the code that it shows runs, is short, and every room has its line."""

import csv
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

import flexiast
from flexiast import cli
from flexiast.checkpoints.formats import FORMATS
from flexiast.data.manifest import read_manifest
from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST
from flexiast.traintest.patch_sampler import PatchSampler
from tests.sounds import write_folder

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```(?:python|sh)\n# (\S+)\n(.*?)```", TEXT, re.DOTALL))
MODEL = ROOT / "pretrained_models" / "demo_flexible"


def module(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The code shown for a file of `src`, run as if it were there: as a module, or at the end of the one that is."""
    name = "flexiast." + path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    made = ModuleType(name)
    made.__package__ = name.rpartition(".")[0]
    if (ROOT / path).exists():
        vars(made).update(vars(import_module(name)))
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(BLOCKS[path], path, "exec"), vars(made))
    return made


def test_every_addition_takes_fewer_than_40_lines() -> None:
    sections = {title: body for title, _, body in (part.partition("\n") for part in TEXT.split("\n## "))}
    for title in ("Add a data set", "Add a checkpoint format", "Add a patch schedule", "Add a command"):
        blocks = re.findall(r"```(?:python|sh)\n(.*?)```", sections[title], re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines() if line.strip() and line[0] != "#"]
        assert 0 < len(lines) < 40, title
    assert len(BLOCKS) == 5


def test_every_room_has_its_line_and_every_line_its_room() -> None:
    named = set(re.findall(r"^\| `([^`]+)` \|", TEXT, re.MULTILINE))
    assert all((ROOT / name).exists() for name in named)
    rooms = {f"src/{path.parent.name}" for path in (ROOT / "src").glob("*/__init__.py")}
    files = {f"src/{path.name}" for path in (ROOT / "src").glob("*.py")} - {"src/__init__.py"}
    assert {name for name in named if name.startswith("src/")} == rooms | files


def test_the_make_targets_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{name}:" in makefile for name in re.findall(r"`?make ([a-z-]+)", TEXT))


@pytest.fixture
def urbansound(tmp_path: Path) -> Path:
    """UrbanSound8K in its real layout, with 6 classes of 4 clips in each of folds 1 and 10."""
    root, rows = tmp_path / "UrbanSound8K", []
    for fold in (1, 10):
        sounds = tmp_path / f"sounds{fold}"
        write_folder(sounds, 4, seed=fold)
        (root / "audio" / f"fold{fold}").mkdir(parents=True)
        for number, path in enumerate(sorted(sounds.glob("*/*.wav"))):
            shutil.move(path, root / "audio" / f"fold{fold}" / f"{number}.wav")
            rows.append((f"{number}.wav", number, fold, path.parent.name))
    (root / "metadata").mkdir()
    with open(root / "metadata" / "UrbanSound8K.csv", "w", newline="") as file:
        csv.writer(file).writerows([("slice_file_name", "fsID", "fold", "class"), *rows])
    return root


def test_the_data_set_shown_becomes_manifests(urbansound: Path, tmp_path: Path) -> None:
    script = tmp_path / "prepare.py"
    script.write_text(BLOCKS["egs/urbansound8k/prepare.py"])
    command = [sys.executable, str(script), str(urbansound), str(tmp_path / "out"), "--val-share", "0.25"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sizes = {}
    for split in ("train", "val", "test"):
        manifest = read_manifest(tmp_path / "out" / f"{split}.json", tmp_path / "out" / "labels.csv")
        sizes[split] = set(Counter(clip.classes for clip in manifest.clips).values())
    assert sizes == {"train": {3}, "val": {1}, "test": {4}}


def test_the_settings_shown_make_a_recipe(tmp_path: Path) -> None:
    egs = tmp_path / "egs"
    shutil.copytree(ROOT / "egs", egs, ignore=shutil.ignore_patterns("exp", "data", "__pycache__"))
    (egs / "urbansound8k").mkdir()
    (egs / "urbansound8k" / "settings.sh").write_text(BLOCKS["egs/urbansound8k/settings.sh"])
    command = [egs / "baseline.sh", "urbansound8k", "16", "--data", "/d", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--data.mean auto" in done.stdout
    assert "--features.frames 400" in done.stdout


def test_the_format_shown_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    form = module("src/checkpoints/formats/prefixed.py", monkeypatch).FORMAT
    FORMATS.append(form)
    try:
        network = FlexiAST(FlexiASTConfig(classes=3, frames=96, width=64, depth=2, heads=1))
        path = tmp_path / "mine.pth"
        torch.save({f"mine.{name}": tensor for name, tensor in network.state_dict().items()}, path)
        model = flexiast.load(path)
    finally:
        FORMATS.remove(form)
    assert model.config == network.config
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert model.load_report is not None
    assert model.load_report.format == "FlexiAST below mine."


def test_the_schedule_shown_goes_from_fine_to_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = tuple(flexiast.PatchSize(size, size) for size in (8, 16, 32))
    draws = import_module("flexiast.traintest.patch_draws")
    monkeypatch.setattr(draws, "DRAWS", dict(draws.DRAWS))
    shown = module("src/traintest/patch_draws.py", monkeypatch).DRAWS["fine-to-coarse"]
    sampler = PatchSampler(sizes, draw=shown, steps=900)
    assert [int(sampler.shares(step).argmax()) for step in (0, 899)] == [0, 2]
    early, late = (Counter(sampler[step][0] for step in range(start, start + 300)) for start in (0, 600))
    assert early[sizes[0]] > 150 < late[sizes[2]]


def test_the_command_shown_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    module("src/commands/classes.py", monkeypatch)
    monkeypatch.setitem(cli.COMMANDS, "classes", "list the classes of a model")
    assert cli.main(["classes", str(MODEL), "--sort"]) == 0
    assert capsys.readouterr().out.splitlines() == sorted(flexiast.load(MODEL).labels.names)
    assert cli.main(["classes", "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
