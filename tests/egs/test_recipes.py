"""Every published hyper-parameter against the configuration that each recipe's shell script resolves to.

The scripts print their commands (`--dry-run`), whose arguments are then parsed by the command line's own parser. The
expected numbers are those of the papers' repositories, as the scripts name them.
"""

import dataclasses
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import flexiast
from flexiast import PatchSize
from flexiast.commands.command_line import read_arguments
from flexiast.commands.measure import MeasureConfig
from flexiast.models.geometry import EVERY_SIZE
from flexiast.runtime.arguments import AUTO
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.patch_plan import FLEXIBLE_DRAW, FLEXIBLE_DROPOUT, drawn_sizes, sampler_of

EGS = Path(__file__).resolve().parents[2] / "egs"
ALL_SIZES = [8, 10, 12, 15, 16, 20, 24, 30, 32, 40, 48]
EVAL_SIZES = [8, 10, 12, 16, 20, 24, 30, 32, 40, 48]
COMMON = {
    "optim.name": "adam",
    "optim.betas": (0.95, 0.999),
    "optim.weight_decay": 5e-7,
    "optim.warmup_steps": 1000,
    "optim.schedule": "step",
    "precision": "auto",
}
HALVED_FROM_2 = {"optim.step_from": 2, "optim.step_every": 1, "optim.step_factor": 0.5}
SLOWLY_FROM_5 = {"optim.step_from": 5, "optim.step_every": 1, "optim.step_factor": 0.85}
NO_WARM_UP = {"optim.warmup_steps": 0}  # egs/esc50/run_esc.sh and egs/speechcommands/run_sc.sh of AST: --warmup False
AST_MASKS = {"augment.freq_mask": 48, "augment.time_mask": 192}
PUBLISHED = {
    "audioset": {
        **HALVED_FROM_2,
        **AST_MASKS,
        "optim.lr": 1e-5,
        "epochs": 5,
        "data.batch_size": 12,
        "data.sampling": "balanced",
        "augment.mixup": 0.5,
        "average_from": 1,
        "loss": "bce",
        "metric": "mAP",
        "features.frames": 1024,
        "data.mean": -4.2677393,
        "data.std": 4.5689974,
    },
    "vggsound": {
        **HALVED_FROM_2,
        **AST_MASKS,
        "optim.lr": 1e-5,
        "epochs": 20,
        "data.batch_size": 12,
        "data.sampling": "balanced",
        "augment.mixup": 0,
        "loss": "bce",
        "metric": "accuracy",
        "features.frames": 1024,
        "data.mean": -5.0767093,
        "data.std": 4.4533687,
    },
    "voxceleb": {
        **HALVED_FROM_2,
        **AST_MASKS,
        "optim.lr": 1e-5,
        "epochs": 20,
        "data.batch_size": 12,
        "augment.mixup": 0,
        "loss": "ce",
        "metric": "accuracy",
        "features.frames": 1024,
        "data.mean": -3.7614744,
        "data.std": 4.2011642,
    },
    "esc50": {
        **SLOWLY_FROM_5,
        **NO_WARM_UP,
        "augment.freq_mask": 24,
        "augment.time_mask": 96,
        "augment.mixup": 0,
        "augment.noise": 0,
        "optim.lr": 1e-5,
        "epochs": 25,
        "data.batch_size": 48,
        "data.sampling": "shuffle",
        "loss": "ce",
        "metric": "accuracy",
        "features.frames": 512,
        "data.mean": -6.6268077,
        "data.std": 5.358466,
    },
    "speechcommands": {
        **SLOWLY_FROM_5,
        **NO_WARM_UP,
        "augment.freq_mask": 48,
        "augment.time_mask": 48,
        "augment.mixup": 0.6,
        "augment.noise": 0.1,
        "augment.roll": 10,
        "optim.lr": 2.5e-4,
        "epochs": 30,
        "data.batch_size": 128,
        "data.sampling": "shuffle",
        "loss": "bce",
        "metric": "accuracy",
        "features.frames": 128,
        "data.mean": -6.845978,
        "data.std": 5.5654526,
    },
}
DATA_SETS = list(PUBLISHED)


Commands = Callable[..., list[list[str]]]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Runs a recipe with --dry-run; returns the argument lists of the commands that it prints."""

    def run(script: str, *options: str, **environment: str) -> list[list[str]]:
        done = dry_run(EGS / script, *options, "--exp", str(tmp_path / "exp"), **environment)
        assert done.returncode == 0, done.stderr
        assert not list(tmp_path.iterdir())
        return [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("# ")]

    return run


def dry_run(script: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a recipe with --dry-run, without any of our commands on the PATH."""
    plain = {"PATH": "/usr/bin:/bin"} | environment
    return subprocess.run([script, *options, "--dry-run"], capture_output=True, text=True, check=False, env=plain)


def training(command: list[str]) -> TrainConfig:
    """The configuration that a printed `flexiast train` command resolves to."""
    assert command[:2] == ["flexiast", "train"]
    return read_arguments(TrainConfig, command[2:], "flexiast train")


def measuring(command: list[str]) -> MeasureConfig:
    """The configuration that a printed measurement resolves to."""
    if command[0] == "python":
        assert Path(command[1]).resolve() == EGS.parent / "measure_flexibility.py"
    else:
        assert command[:2] == ["flexiast", "measure"]
    config = read_arguments(MeasureConfig, command[2:], "flexiast measure")
    assert config.overwrite  # the same command runs again
    return config


def setting(config: object, name: str) -> object:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def assert_settings(config: TrainConfig, expected: dict[str, object]) -> None:
    assert {name: setting(config, name) for name in expected} == expected


def squares(sizes: list[int]) -> tuple[PatchSize, ...]:
    return tuple(PatchSize(size, size) for size in sizes)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATA_SETS)
def test_baselines_resolve_to_the_published_settings(commands: Commands, dataset: str) -> None:
    for patch in (8, 16, 32):
        train, measure = commands(f"{dataset}/run{patch}.sh", "--stage", "2", "--stop-stage", "3", *one_fold(dataset))
        config = training(train)
        assert_settings(config, COMMON | PUBLISHED[dataset])
        assert config.model.patch_size == PatchSize(patch, patch)
        assert config.patches.sizes == ()
        measured = measuring(measure)
        assert measured.patch_sizes == squares(EVAL_SIZES)
        assert measured.data.name == "test.json"
        assert measured.checkpoints == (str(config.out),)
        assert config.data.val == 0 or config.data.val.name == "val.json"


def one_fold(dataset: str) -> list[str]:
    return ["--folds", "3"] if dataset == "esc50" else []


def test_balanced_audioset_has_a_schedule_of_its_own(commands: Commands) -> None:
    (train,) = commands("audioset/run16.sh", "--set", "balanced", "--stage", "2", "--stop-stage", "2")
    expected = {"optim.lr": 5e-5, "epochs": 25, "optim.step_from": 10, "optim.step_every": 5, "average_from": 6}
    expected |= {"optim.step_factor": 0.5, "data.sampling": "shuffle"}
    assert_settings(
        training(train),
        COMMON | PUBLISHED["audioset"] | expected,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("audioset", "timm:deit_base_distilled_patch16_384.fb_in1k"),
        ("vggsound", "timm:vit_base_patch16_224.augreg_in21k_ft_in1k"),
        ("esc50", "AudioSet AST"),
        ("speechcommands", "AudioSet AST"),
        ("voxceleb", "AudioSet AST"),
    ],
)
def test_where_baselines_start(commands: Commands, dataset: str, expected: str) -> None:
    only_training = ["--stage", "2", "--stop-stage", "2", *one_fold(dataset)]
    init = training(commands(f"{dataset}/run16.sh", *only_training)[0]).model.init
    assert init == expected or Path(init).parent.name == "pretrained_models"
    other = training(commands(f"{dataset}/run16.sh", *only_training, "--init", "a.pth")[0])
    assert other.model.init == "a.pth"
    scratch = training(commands(f"{dataset}/run32.sh", *only_training, "--init", "scratch", "--size", "tiny")[0])
    assert (scratch.model.init, scratch.model.size, scratch.model.patch_size) == (None, "tiny", PatchSize(32, 32))


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_flexification_draws_the_published_sizes_from_the_trained_baseline(commands: Commands, dataset: str) -> None:
    train, measure = commands(
        f"{dataset}/flexify.sh", "--from", "8", "--stage", "2", "--stop-stage", "3", *one_fold(dataset)
    )
    config = training(train)
    assert_settings(config, COMMON | PUBLISHED[dataset])
    sizes, measured = squares(ALL_SIZES), squares(EVAL_SIZES)
    if dataset == "voxceleb":  # 16 x t, without 15
        sizes = measured = tuple(PatchSize(16, size) for size in EVAL_SIZES)
    assert config.patches.sizes == sizes
    assert config.patches.weights == ()
    assert config.eval_patch_sizes == measured
    assert config.model.patch_size == PatchSize(16, 16)  # base kernel
    assert Path(config.model.init).relative_to(config.out.parents[1 if dataset == "esc50" else 0]).parts[0] == "patch8"
    assert config.distill.teacher is None
    assert measuring(measure).patch_sizes == measured


@pytest.mark.parametrize("axes", ["both", "time", "freq"])
def test_distillation_is_from_the_frozen_baseline_at_its_own_size(commands: Commands, axes: str) -> None:
    options = ["--method", "distill", "--axes", axes, "--temperature", "2", "--label-weight", "0.25", "--stage", "2"]
    config = training(commands("vggsound/flexify.sh", *options, "--stop-stage", "2")[0])
    assert config.distill.teacher == config.model.init
    assert config.distill.patch_size is None
    assert (config.distill.temperature, config.distill.label_weight) == (2.0, 0.25)
    expected = {"both": (48, 48), "time": (16, 48), "freq": (48, 16)}[axes]
    assert config.patches.sizes[-1] == PatchSize(*expected)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [*DATA_SETS, "arabic_speech_commands"])
def test_specialists_differ_from_the_flexible_model_in_nothing_but_the_patch_size(
    commands: Commands, dataset: str
) -> None:
    only = ["--from", "8", "--stage", "2", "--stop-stage", "2", *one_fold(dataset)]
    flexible = training(commands(f"{dataset}/flexify.sh", *only)[0])
    sizes = ["8", "16x8", "48"]
    specialists = [training(c) for c in commands(f"{dataset}/specialists.sh", *only, "--sizes", " ".join(sizes))]
    assert [s.patches.sizes for s in specialists] == [s.eval_patch_sizes for s in specialists]
    assert [str(s.patches.sizes[0]) for s in specialists] == sizes
    for specialist in specialists:
        own = {name: getattr(specialist, name) for name in ("out", "patches", "eval_patch_sizes")}
        assert dataclasses.replace(flexible, **own) == specialist


def test_arabic_speech_commands_takes_its_published_settings_from_speech_commands(commands: Commands) -> None:
    only = ["--stage", "2", "--stop-stage", "2"]
    config = training(commands("arabic_speech_commands/run16.sh", *only, "--preset", "published")[0])
    expected = {"loss": "ce", "features.frames": 96, "data.mean": None, "data.std": None}
    assert_settings(config, COMMON | PUBLISHED["speechcommands"] | expected)
    fitted = training(commands("arabic_speech_commands/run16.sh", *only)[0])
    assert (fitted.epochs, fitted.optim.lr, fitted.features.frames) == (AUTO, AUTO, AUTO)


def test_named_recipes_of_supvs_flexiast(commands: Commands) -> None:
    for script, teacher in (("supervised", False), ("distill", True)):
        (train,) = commands(f"supvs_flexiast/{script}.sh", "audioset", "--stage", "2", "--stop-stage", "2")
        assert (training(train).distill.teacher is not None) == teacher


@pytest.mark.slow
def test_five_folds_are_five_runs(commands: Commands) -> None:
    runs = [training(c) for c in commands("esc50/run16.sh", "--stage", "2", "--stop-stage", "2")]
    assert [run.out.name for run in runs] == [f"fold{k}" for k in range(1, 6)]
    assert len({run.data.train for run in runs}) == 5


@pytest.mark.parametrize(
    ("options", "sizes", "draw"),
    [
        ([], ALL_SIZES, "uniform"),
        (["--preset", "modern"], range(8, 49), "coarse-to-fine"),
        (["--preset", "auto"], range(8, 49), "coarse-to-fine"),
        (["--preset", "modern", "--patch-sizes", "8 16"], [8, 16], "uniform"),
    ],
)
def test_published_sizes_are_drawn_alike_and_the_other_presets_draw_as_flexify(
    options: list[str], sizes: list[int], draw: str, commands: Commands
) -> None:
    only = ["--stage", "2", "--stop-stage", "2"]
    config = training(commands("speechcommands/flexify.sh", *options, *only)[0])
    assert config.patches.sizes == squares(list(sizes))
    assert config.patches.draw == draw
    assert config.patches.rectangles == ("yes" if draw == "coarse-to-fine" else "auto")
    assert config.patches.dropout == (FLEXIBLE_DROPOUT if draw == "coarse-to-fine" else None)


def test_modern_preset_and_other_options(commands: Commands) -> None:
    options = ["--preset", "modern", "--lr", "3e-4", "--mean", "auto", "--token-budget", "6156", "--extra", "--compile"]
    config = training(commands("vggsound/run16.sh", *options, "--stage", "2", "--stop-stage", "2")[0])
    expected = {
        "optim.name": "adamw",
        "optim.schedule": "cosine",
        "optim.clip_norm": 1.0,
        "optim.lr": 3e-4,
        "data.mean": None,
        "data.std": None,
        "token_budget": 6156,
        "compile": True,
    }
    assert_settings(config, expected)


def test_many_processes_are_started_by_torchrun(commands: Commands) -> None:
    only = ["--stage", "2", "--stop-stage", "2"]
    (command,) = commands("audioset/run16.sh", *only, NPROC="4")
    assert command[:4] == ["torchrun", "--nproc-per-node", "4", "--standalone"]
    (command,) = commands("audioset/run16.sh", *only, NPROC="8", NNODES="2", RDZV="first:29500", RDZV_ID="7")
    launch = " ".join(command[: command.index("-m")])
    assert launch.startswith("torchrun --nproc-per-node 8 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint first:29500")
    assert command[command.index("-m") :][:3] == ["-m", "--", "flexiast.cli"]
    assert training(["flexiast", *command[command.index("-m") + 3 :]]).data.batch_size == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audioset/run16.sh", "--set", "half"], "--set: found half, expected one of full balanced"),
        (["vggsound/run16.sh", "--preset", "new"], "--preset: found new, expected one of published modern auto"),
        (["vggsound/flexify.sh", "--axes", "z"], "--axes: found z, expected one of both time freq"),
        (["esc50/run16.sh", "--init", "scratch"], "--data is needed"),
        (["esc50/run16.sh", "--init", "owner/name"], "--data is needed"),
        (["vggsound/run16.sh"], "--data is needed"),  # starts from a timm model
        (
            ["esc50/run16.sh", "--data", "/d"],
            "ast_audioset_16_16.pth: no such checkpoint to start from; fetch it with: python pretrained_models/fetch.py"
            " ast_audioset_16_16, or see --init",
        ),
        (["vggsound/run16.sh", "--data", "/d", "--init", "models/a.pth"], "models/a.pth: no such checkpoint"),
        (
            ["vggsound/flexify.sh", "--data", "/d", "--from", "8", "--exp", "exp"],
            "exp/patch8: no such checkpoint to start from; train it first with egs/vggsound/run8.sh, or give another",
        ),
        (["esc50/run16.sh", "--HOME", "x"], "unknown option --HOME"),
        (["supvs_flexiast/flexify.sh", "urban8k"], "no recipe for data set urban8k"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    stub = tmp_path / "flexiast"
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [EGS / arguments[0], *arguments[1:]], capture_output=True, text=True, env=environment, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == [stub]
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


SCRIPTS = sorted(EGS.glob("*/*.sh"))
RECIPES = [script for script in SCRIPTS if os.access(script, os.X_OK)]


@pytest.mark.parametrize("script", RECIPES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_recipe_prints_commands_that_parse_and_runs_nothing(script: Path, tmp_path: Path) -> None:
    dataset = ["esc50"] if script.parent.name == "supvs_flexiast" else []
    folds = ["--folds", "1 2"] if script.parent.name in ("supvs_flexiast", "esc50") else []
    done = dry_run(script, *dataset, *folds, "--data", "/my data", "--exp", str(tmp_path / "exp"))
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    kinds = []
    for line in done.stdout.splitlines():
        command = shlex.split(line, comments=True)
        if not command:
            assert line.startswith("# stage ")
        elif command[:2] == ["flexiast", "train"]:
            kinds.append("train")
            assert training(command).out.is_relative_to(tmp_path / "exp")
        elif command[1] == "measure" or command[1].endswith("measure_flexibility.py"):
            kinds.append("measure")
            assert measuring(command).out.is_relative_to(tmp_path / "exp")
        else:
            assert command[0] == "python"
            assert (Path(command[1]) if Path(command[1]).is_absolute() else EGS.parent / command[1]).is_file()
            kinds.append(Path(command[1]).name)
            assert "/my data" in command or Path(command[1]).name in ("average.py", "report.py", "specialists.py")
    assert {"prepare.py", "train", "measure"} <= set(kinds)


@pytest.mark.slow
def test_a_validation_split_is_named_where_there_is_one_or_will_be(commands: Commands, tmp_path: Path) -> None:
    only = ["--stage", "2", "--stop-stage", "2"]

    def validates(script: str, *options: str) -> bool:
        return training(commands(script, *only, *options)[0]).data.val != 0

    assert validates("vggsound/run16.sh")
    assert not validates("vggsound/run16.sh", "--prepare", "--val-share 0")
    assert not validates("esc50/run16.sh")
    assert validates("esc50/run16.sh", "--prepare", "--val-share 0.1")
    manifests = tmp_path / "written" / "manifests"
    manifests.mkdir(parents=True)
    (manifests / "train.json").touch()
    done = dry_run(EGS / "vggsound/run16.sh", *only, "--exp", str(manifests.parent))
    assert training(shlex.split(done.stdout.splitlines()[1])).data.val == 0


@pytest.mark.slow
def test_workers_are_no_more_than_the_cores(commands: Commands) -> None:
    only = ["vggsound/run16.sh", "--stage", "2", "--stop-stage", "2"]
    assert training(commands(*only)[0]).data.workers == min(8, len(os.sched_getaffinity(0)))
    assert training(commands(*only, OMP_NUM_THREADS="1")[0]).data.workers == min(8, len(os.sched_getaffinity(0)))
    assert training(commands(*only, "--workers", "11")[0]).data.workers == 11


@pytest.mark.slow
def test_the_demo_draws_each_size_as_often_as_its_weight_says(commands: Commands) -> None:
    trained = [training(c) for c in commands("demo/run.sh", "--stage", "2", "--stop-stage", "5", "--draw", "nine")]
    assert [run.out.name for run in trained] == ["fixed", "control", "supervised", "distilled"]
    assert [len(run.patches.weights) for run in trained] == [0, 0, 9, 9]
    assert trained[2].patches.sizes == squares([8, 10, 12, 16, 20, 24, 32, 40, 48])


@pytest.mark.slow
def test_the_demo_draws_as_flexify_and_trains_specialists_if_asked(commands: Commands) -> None:
    stages = ("--stage", "2", "--stop-stage", "5")
    trained = [training(c) for c in commands("demo/run.sh", *stages)]
    assert [run.patches.draw for run in trained] == [None, None, FLEXIBLE_DRAW, FLEXIBLE_DRAW]
    assert trained[2].patches.sizes == EVERY_SIZE
    assert trained[2].patches.rectangles == "yes"
    assert trained[2].patches.dropout == FLEXIBLE_DROPOUT
    demo, steps = flexiast.load(EGS.parent / "pretrained_models" / "demo_fixed"), 1001
    sampler = sampler_of(trained[2].patches, drawn_sizes(trained[2].patches), demo.config, 96, seed=0, steps=steps)
    compute = trained[2].epochs * sampler.mean_cost()
    assert compute == pytest.approx(trained[1].epochs * demo.config.flops(16), rel=0.02)  # the control's
    assert trained[2].eval_patch_sizes == squares([8, 10, 12, 16, 20, 24, 32, 40, 48])
    more = [training(c) for c in commands("demo/run.sh", *stages, "--specialists", "8 48")]
    alone = [run for run in more if run.out.parent.name == "specialists"]
    assert [run.patches.sizes for run in alone] == [squares([8]), squares([48])]
    assert {(run.epochs, run.optim, run.model.init) for run in alone} == {
        (trained[1].epochs, trained[1].optim, trained[1].model.init)
    }


@pytest.mark.slow
def test_a_teacher_given_is_the_start_of_every_fold(commands: Commands) -> None:
    only = ["--stage", "2", "--stop-stage", "2", "--method", "distill", "--teacher", "some.pth"]
    runs = [training(c) for c in commands("esc50/flexify.sh", *only)]
    assert [(run.model.init, run.distill.teacher) for run in runs] == [("some.pth", "some.pth")] * 5


RECORDER = """#!/bin/sh
{ for word in "$(basename "$0")" "$@"; do echo "$word"; done; echo ---; } >> "$(dirname "$0")/log"
"""


def record(egs: Path, bin_dir: Path, script: str, *options: str) -> list[list[str]]:
    """Run a recipe with `flexiast` and `python` replaced by a recorder; returns the commands that it ran."""
    bin_dir.mkdir(exist_ok=True)
    for name in ("flexiast", "python"):
        (bin_dir / name).write_text(RECORDER)
        (bin_dir / name).chmod(0o755)
    path = {"PATH": f"{bin_dir}:{os.environ['PATH']}"}
    done = subprocess.run(
        [egs / script, *options], capture_output=True, text=True, check=False, env=os.environ | path, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [block.splitlines() for block in (bin_dir / "log").read_text().split("---\n") if block]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["vggsound/run16.sh", "esc50/flexify.sh", "demo/run.sh"])
def test_paths_may_hold_spaces(script: str, tmp_path: Path) -> None:
    egs = tmp_path / "my checkout" / "egs"
    shutil.copytree(EGS, egs, ignore=shutil.ignore_patterns("exp", "data", "__pycache__"))
    exp, data, start = (tmp_path / name for name in ("my runs", "my data", "my start.pth"))
    start.touch()
    data.mkdir()
    options = ["--exp", str(exp), "--data", str(data), "--stop-stage", "3"]
    if script != "demo/run.sh":
        options += ["--init" if "run" in script else "--teacher", str(start)]
    ran = record(egs, tmp_path / "bin", script, *options)
    printed = dry_run(egs / script, *options).stdout
    assert ran == [shlex.split(line) for line in printed.splitlines() if not line.startswith("# ")]
    prepare, train = ran[:2]
    assert prepare[2:] == [str(data), str(exp / "manifests")]
    assert Path(prepare[1]).resolve().is_relative_to(egs)
    config = training(train)
    assert config.out.is_relative_to(exp)
    assert config.data.train.is_relative_to(exp / "manifests")
    assert config.model.init in (str(start), None)


@pytest.mark.slow
def test_a_job_in_the_background_may_have_a_path_with_spaces(tmp_path: Path) -> None:
    exp = tmp_path / "my runs"
    ran = record(EGS, tmp_path / "bin", "demo/run.sh", "--exp", str(exp), "--stage", "3", "--stop-stage", "3")
    assert training(ran[0]).out == exp / "control"
    assert (exp / "control.log").is_file()


@pytest.mark.parametrize("script", ["baseline.sh", "audioset/run8.sh", "supvs_flexiast/flexify.sh", "demo/run.sh"])
def test_help_names_options_and_sources(script: str) -> None:
    done = subprocess.run([EGS / script, "--help"], capture_output=True, text=True, check=False)
    assert "--stop-stage" in done.stdout
    assert "--dry-run" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_headers_name_a_source_or_point_to_one(script: Path) -> None:
    header = script.read_text().split("\n\n")[0]
    assert any(word in header for word in ("et al.", "flexify.sh --help", "settings.sh", "--mean -6.845978"))
