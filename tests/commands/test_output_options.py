"""--quiet and --json: every command has them, and prints as they say."""

import contextlib
import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest

import flexiast
from flexiast.cli import COMMANDS, main
from flexiast.commands import demo
from flexiast.doctor.finding import Examination
from flexiast.errors import ConfigError
from flexiast.runtime.output import OutputOptions
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.run_directory import differences
from tests.commands.test_option_names import options_of
from tests.sounds import CLASSES, tiny_model, write_folder

TRAINING = (
    "--data.train {data} --data.val {data} --data.workers 0 --data.batch-size 4 --data.mean -5 --data.std 4"
    " --patches.sizes 48 --epochs 0.5 --log none --optim.warmup-steps 0 --threads 1 --out {out}"
)
RUNS = {
    "train": f"{TRAINING} --model.size micro --features.frames 96",
    "flexify": f"{{model}} {TRAINING}",
    "measure": "{model} --data {data} --out {out} --patch-sizes 48 --workers 0",
    "curve": "{model} --data {data} --out {out} --patch-sizes 48 --workers 0",
    "predict": "{model} {data} --patch-size 16 --workers 0 --out {out}.csv",
    "events": "{model} {data}/low_up/0.wav --coarse 48 --fine 48 --out {out}.csv",
    "embed": "{model} {data} --workers 0 --out {out}.npz",
    "score": "{model} {data} --workers 0 --out {out}.npz",
    "bench": "{model} --out {out} --patch-sizes 48 --seconds 0 --batch-size 1",
    "export": "{model} --format torch --patch-size 48 --out {out}.pt2",
    "convert": "{model} {out}",
    "doctor": "{model}",
    "report": "{run} --patch-sizes 48 --seconds 0 --clips 0 --workers 0 --out {out}.html",
    "stats": "{data} --workers 0 --out {out}.json",
    "pack": "{data} {out}",
}
"""One miniature run of every command but `demo`, which serves until it is ended."""
SLOW = {"bench", "export", "report"}
KEYS = {
    "train": {"clips", "metric", "validation", "logistic_regression"},
    "flexify": {"results"},
    "measure": {"results"},
    "curve": {"points", "cascades", "clips"},
    "predict": {"files", "failures"},
    "events": {"events", "real_time_factor"},
    "embed": {"files", "failures"},
    "score": {"files", "failures"},
    "bench": {"costs"},
    "export": {"patch_size", "difference", "runtime"},
    "convert": {"format", "entries", "notes"},
    "doctor": {"subject", "facts", "findings"},
    "report": {"megabytes"},
    "stats": {"mean", "std", "frames", "clips", "options"},
    "pack": {"clips", "left_out"},
}
"""What each gives beside `written` and `seconds`."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, a folder of clips of its classes, and a run."""
    root = tmp_path_factory.mktemp("given")
    write_folder(root / "data", 2, seed=0)
    tiny_model(sorted(CLASSES)).save_pretrained(root / "model")
    places = {"model": root / "model", "data": root / "data", "out": root / "run"}
    assert main(["train", *RUNS["train"].format(**places).split(), "--quiet"]) == 0
    return {"model": root / "model", "data": root / "data", "run": root / "run"}


def test_every_command_has_both_from_one_place() -> None:
    assert {*RUNS, "demo"} == {*COMMANDS} == {*KEYS, "demo"}
    for name in COMMANDS:
        config = import_module(f"flexiast.commands.{name}").CONFIG
        assert {"--quiet", "--json"} <= options_of(config), name
        assert issubclass(config, OutputOptions) or name == "flexify"  # which has them among its training settings


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RUNS])
def test_it_prints_json_and_nothing_else_or_nothing_at_all(name: str, given, tmp_path: Path, capsys) -> None:
    def printed(option: str) -> tuple[str, str]:
        command = RUNS[name].format(**given, out=tmp_path / option.strip("-"))
        assert main([name, *command.split(), option]) == 0
        return capsys.readouterr()

    out, err = printed("--quiet")
    assert out == ""
    assert all(line.startswith("flexiast: warning: ") for line in err.splitlines())
    out, _ = printed("--json")
    (line,) = out.splitlines()
    content = json.loads(line)
    assert content.keys() >= KEYS[name] | {"seconds"}
    assert name == "doctor" or Path(content["written"]).exists()


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("predict {model} {data} --workers 0", {"path", "predictions"}),
        ("events {model} {data}/low_up/0.wav --threshold 0 --release 0", {"label", "start", "end", "score"}),
    ],
)
def test_answers_that_come_one_by_one_are_one_object_a_line(command: str, keys: set[str], given, capsys) -> None:
    words = command.format(**given).split()
    assert main([*words, "--json"]) == 0
    told = capsys.readouterr()
    objects = [json.loads(line) for line in told.out.splitlines()]
    assert len(objects) > 1
    assert all(one.keys() == keys for one in objects)
    assert "\ntime " in told.err  # the table, out of their way
    assert main([*words, "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert len(quiet.out.splitlines()) >= len(objects)  # no file keeps them
    assert quiet.err == ""
    assert main([*words, "--json", "--quiet"]) == 0
    assert capsys.readouterr() == (told.out, "")


def test_a_mistake_leaves_stdout_empty(given, tmp_path: Path, capsys) -> None:
    command = RUNS["stats"].format(**given, out=tmp_path / "x").split()
    assert main(["stats", *command, "--json", "--quiet", "--max-bad", "7"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("flexiast: error: max_bad: found 7.0")


def test_what_could_not_be_used_is_in_the_json_and_in_the_exit_code(given, tmp_path: Path, capsys) -> None:
    data = shutil.copytree(given["data"], tmp_path / "data")
    (data / "low_up" / "0.wav").write_bytes(b"no audio")
    command = RUNS["score"].format(**given | {"data": data}, out=tmp_path / "s").split()
    assert main(["score", *command, "--json"]) == 2
    told = capsys.readouterr()
    content = json.loads(told.out)
    assert content["files"] == 11
    assert "not readable as audio" in content["failures"][0]
    assert "1 of 12 files could not be used" in told.err


@pytest.mark.parametrize(
    ("option", "start"), [("--json", '{"address": "http://here"'), ("--quiet", "open http://here")]
)
def test_the_demo_says_where_it_is(option: str, start: str, given, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    @contextlib.contextmanager
    def stopped_at_once():
        yield True

    class Page:
        def close(self, verbose: bool) -> None: ...

    monkeypatch.setattr(demo, "optional", lambda *_: None)
    monkeypatch.setattr(demo, "build", lambda *_: Page())
    monkeypatch.setattr(demo, "serve", lambda *_: "http://here")
    monkeypatch.setattr(demo, "noted_signals", stopped_at_once)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    assert main(["demo", str(given["model"]), "--port", "0", option]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(start)


def test_a_run_goes_on_quietly_that_began_loudly() -> None:
    before = {"quiet": False, "json": False, "seed": 0}
    assert differences(before, before | {"quiet": True, "json": True}) == []
    assert differences({"seed": 0}, before) == []  # a run of an earlier version
    assert len(differences(before, before | {"seed": 1})) == 1


@pytest.mark.slow
def test_commands_are_functions_too(given, tmp_path: Path) -> None:
    data = given["data"]
    model = flexiast.train(
        {"train": data, "val": data, "workers": 0, "batch_size": 4, "mean": -5.0, "std": 4},
        out=tmp_path / "run", model={"size": "micro"}, features={"frames": 96}, log="none", quiet=True, epochs=0.5,
        patches={"sizes": (48, flexiast.PatchSize(32, 48))}, threads=1,
    )  # fmt: skip
    assert model.metadata["trained_patch_sizes"] == ["48", "32x48"]
    curve = flexiast.curve(tmp_path / "run", data, patch_sizes=[48], workers=0, quiet=True)
    assert [point.patch_size for point in curve.points] == [flexiast.PatchSize(48, 48)]
    assert flexiast.load(tmp_path / "run").curve == curve
    examination = flexiast.examine(tmp_path / "run", workers=0, quiet=True)
    assert isinstance(examination, Examination)
    assert examination.subject == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"epoch": 3}, "--epoch"), ({"epochs": -1}, "epochs"), ({"optim": {"lr": "fast"}}, "--optim.lr")],
)
def test_a_setting_that_is_wrong_is_named(settings: dict, message: str, given) -> None:
    with pytest.raises(ConfigError, match=message):
        flexiast.train(given["data"], **settings)


def test_the_settings_are_those_of_the_command() -> None:
    from flexiast.commands.calls import configuration

    config = configuration("train", {"data": {"train": Path("clips"), "val": None}, "micro_batch": 4})
    assert isinstance(config, TrainConfig)
    assert (config.data.train, config.data.val, config.micro_batch, config.quiet) == (Path("clips"), None, 4, False)
