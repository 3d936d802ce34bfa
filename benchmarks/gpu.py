#!/usr/bin/env python3
"""What a GPU is used for: a training step, what reading adds to it, large patches against small ones, log-mel.

A step is `Stepper.step`, forward, backward and optimizer. Its share of the card's rate: three times the FLOPs of a
forward pass per second, over those of a matrix product in bfloat16 that is timed in the same rounds.

The training loop: a Trainer's loader on packed shards, its objective and its stepper, driven here as its loop drives
them, against the same with a batch that lies on the device. Validation, checkpoints and lines of the log are left out.

It takes a GPU whatever --device says, and without one stops; with --quick it also runs on a CPU, to see that it works.

python benchmarks/gpu.py        writes benchmarks/results/gpu.json and prints the ratios
"""

import copy
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from frontend import RATE, torchaudio_fbank
from harness import Report, arguments, run
from networks import shake
from sounds import write_sounds
from torch import Tensor

from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.data.dataset import Batch, load_batches
from flexiast.data.manifest import Labels, read_manifest
from flexiast.data.pack import pack
from flexiast.features import LogMel
from flexiast.models.config import SIZES
from flexiast.runtime.distributed import World
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.objective import Inputs, Objective
from flexiast.traintest.options import DataConfig, DistillConfig, FeatureOptions, ModelOptions, OptimConfig
from flexiast.traintest.stepper import Stepper
from flexiast.traintest.train import Trainer

BASE = PatchSize(16, 16)
PATCHES = (PatchSize(8, 8), BASE, PatchSize(48, 48))


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "base", "micro, tiny, small or base"),
        frames=(int, 1024, "frames of a clip"),
        batch=(int, 64, "clips of a step; log-mel is of four times as many"),
        part=(int, 16, "clips at once at patch 8"),
        compile=(str, "auto", "yes, no or auto (on a GPU): also a step with compiled blocks"),
        clips=(int, 512, "clips in the shards"),
        workers=(int, 14, "decoding processes"),
        steps=(int, 50, "steps of the training loop in a round"),
    )
    if options.quick:
        options.model, options.frames, options.batch, options.part = "micro", 128, 4, 2
        options.clips, options.workers, options.steps = 16, 1, 2
    elif options.device == "cpu":
        options.device = "cuda"
    if options.device != "cpu" and not torch.cuda.is_available():
        print("gpu: not measured, there is no GPU here (--quick tries the script on the CPU)")
        return  # no error, so that `make bench` goes on
    report = Report("gpu", options, rounds=20)
    training_steps(report)
    with tempfile.TemporaryDirectory() as folder:
        training_loop(report, Path(folder))
    log_mel(report)
    report.finish()


def note(report: Report, name: str, found: float, target: str | None = None) -> None:
    """A fact, beside what it is to be read against."""
    report.facts[name] = {"found": float(f"{found:.4g}")} | ({"target": target} if target else {})


def seconds(report: Report, group: str) -> dict[str, float]:
    """The median of each contender of a group."""
    return {row["contender"]: row["median_ms"] / 1e3 for row in report.rows if row["group"] == group}


def step(model: AudioClassifier, inputs: Inputs, patch: PatchSize, **settings: Any) -> Callable[[], float]:
    """A training step of a copy of the model; it returns the loss."""
    model = copy.deepcopy(model)
    config = TrainConfig(DataConfig(Path(), batch_size=len(inputs.targets)), loss="bce", **settings)
    objective = Objective(model, None, "bce", 0.0, AugmentConfig(), DistillConfig(), config.precision, config.seed)
    stepper = Stepper(model, objective, World(), OptimConfig(lr=1e-4), config.memory, config.compile)

    def train() -> float:
        loss, _ = stepper.step(inputs, [patch], 1.0)
        if stepper.most_clips:  # it went on with fewer at once
            sys.exit(f"error: gpu: the memory does not suffice at patch {patch}; lower --batch or --part")
        return loss

    return train


def training_steps(report: Report) -> None:
    """Share of the matrix rate at each patch size, compiled blocks against eager ones, patch 48 against patch 8."""
    options, device = report.options, report.device
    torch.manual_seed(0)
    config = FlexiASTConfig(classes=527, frames=options.frames, **SIZES[options.model])
    model = AudioClassifier(config, FeatureConfig(frames=options.frames), Labels.numbers(527), "bce")
    model = shake(model).to(device)
    clips = torch.randn(options.batch, options.frames, config.bins, device=device)
    inputs = Inputs(clips, None, (torch.rand(options.batch, 527, device=device) < 0.01).float())
    group = f"training step, {options.model}, {options.batch} x {options.frames} frames"
    size = 512 if options.quick else 8192
    matrix = torch.randn(size, size, device=device).div_(size**0.5)
    halved = matrix.bfloat16()
    report.agree("matrix product", (halved @ halved)[:8].float(), matrix[:8] @ matrix, within=0.1)
    contenders: dict[str, Callable[[], Any]] = {"matrix product": lambda: halved @ halved}
    compiled = options.compile == "yes" or (options.compile == "auto" and device.type == "cuda")
    for patch in PATCHES:
        more = {"micro_batch": options.part if patch == PATCHES[0] else 0}
        exact = step(model, inputs, patch, precision="fp32", **more)
        steps = {"bf16": step(model, inputs, patch, precision="bf16", **more)}
        if compiled and patch == BASE:
            steps["bf16 compiled"] = step(model, inputs, patch, precision="bf16", compile=True)
        expected = [exact(), exact()]  # the second loss has seen gradients and optimizer
        for name, train in steps.items():
            report.agree(f"{group}, {name}, patch {patch}: losses", [train(), train()], expected, within=2e-2)
            contenders[f"{name}, patch {patch}"] = train
    ratios = report.race(group, contenders, against=f"bf16, patch {BASE}")

    rate = 2 * size**3 / min(row["fastest_ms"] / 1e3 for row in report.rows if row["contender"] == "matrix product")
    note(report, "bf16 matrix rate, TFLOP/s", rate / 1e12)
    for name, each in seconds(report, group).items():
        if name != "matrix product":
            flops = 3 * options.batch * config.flops(name.rpartition(" ")[2], options.frames)
            target = "50 or more" if name == f"bf16, patch {BASE}" else None
            note(report, f"{group}, {name}: share of the matrix rate, %", 100 * flops / each / rate, target)
    small, _, large = PATCHES
    faster = ratios[f"bf16, patch {large}"] / ratios[f"bf16, patch {small}"]
    note(report, f"clips/s in training, patch {large} over patch {small}", faster)
    fewer = config.flops(small, options.frames) / config.flops(large, options.frames)
    note(report, f"FLOPs, patch {small} over patch {large}", fewer)
    if compiled:
        note(report, "compiled blocks over eager ones, times faster", ratios[f"bf16 compiled, patch {BASE}"])
    if device.type == "cuda":
        note(report, "most memory of the steps, also fp32, GB", torch.cuda.max_memory_allocated(device) / 1e9)


def training_loop(report: Report, folder: Path) -> None:
    """Steps on batches from shards against steps on one that lies on the device, at the base size."""
    options = report.options
    sounds = write_sounds(folder / "sounds", options.clips, 1 if options.quick else 10, RATE, 1, ".flac")
    pack(read_manifest(sounds), folder / "shards", shard_size=50, progress=False)
    config = TrainConfig(
        DataConfig(folder / "shards", batch_size=options.batch, workers=options.workers),
        out=folder / "run",
        features=FeatureOptions(frames=options.frames),
        model=ModelOptions(size=options.model),
        log="none",
        device=options.device,
    )
    trainer = Trainer(config, progress=False)
    draws = map(trainer.plan.schedule.__getitem__, itertools.count())
    batches = load_batches(trainer.dataset, draws, options.workers, config.data.timeout)

    def train(several: Iterator[Batch]) -> None:
        for batch in itertools.islice(several, options.steps):
            trainer.stepper.step(trainer.objective.prepare(batch), [BASE], 1.0)

    def read(count: int) -> None:
        for _ in itertools.islice(batches, count):
            pass

    group = f"training loop, {options.model}, patch {BASE}, {options.steps} steps of {options.batch} clips"
    first, same = next(batches), trainer.dataset.__getitems__(trainer.plan.schedule[0])
    report.agree(f"{group}: waveforms of a worker and of this process", first.waveform, same.waveform, within=0)
    names = ("waveform", "lengths", "targets")
    fixed = first._replace(**{name: getattr(first, name).to(report.device) for name in names})
    with torch.no_grad():
        losses = [trainer.objective(trainer.model, trainer.objective.prepare(b), BASE) for b in (first, fixed)]
    report.agree(f"{group}: loss", *losses, within=1e-3)
    # The order counts: during the fixed batch the workers read ahead, and the loop must not live on that. What is ready
    # is used up first, and the loop comes after reading alone, with nothing in stock.
    contenders: dict[str, Callable[[], None]] = {
        "fixed batch": lambda: train(itertools.repeat(fixed)),
        "what was read ahead": lambda: read(2 * options.workers),
        "reading alone": lambda: read(options.steps),
        "training loop": lambda: train(batches),
    }
    ratios = report.race(group, contenders, against="fixed batch", rounds=max(2, report.rounds // 4))
    for name in ("reading alone", "training loop"):
        note(report, f"{name}: clips/s", options.steps * options.batch / seconds(report, group)[name])
    note(report, f"{group}: longer than on a fixed batch, %", 100 / ratios["training loop"] - 100, "5 or less")


def log_mel(report: Report) -> None:
    """Seconds of audio per second, in one batch that lies on the device."""
    clips, length = 4 * report.options.batch, 1 if report.options.quick else 10
    waveform = 0.1 * torch.randn(clips, length * RATE, device=report.device)
    ours = LogMel().to(report.device)
    contenders: dict[str, Callable[[], Tensor]] = {
        "torchaudio, clip by clip": lambda: torchaudio_fbank(waveform),
        "LogMel": lambda: ours(waveform),
    }
    group = f"log-mel, {clips} clips of {length} s"
    # On a GPU sums are rounded in another order: where a mel bin is nearly empty that shows.
    within = 1e-5 if report.device.type == "cpu" else 5e-3
    report.agree(group, *(make() for make in contenders.values()), within=within)
    report.race(group, contenders, against="torchaudio, clip by clip")
    times = clips * length / seconds(report, group)["LogMel"]
    note(report, f"{group}: times real time", times, "100,000 or more")


if __name__ == "__main__":
    run(main)
