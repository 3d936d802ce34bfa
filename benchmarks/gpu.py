#!/usr/bin/env python3
"""What a GPU is used for: a training step, what reading adds to it, large patches against small ones, log-mel, answers.

A step is `Stepper.step`, forward, backward and optimizer. Its share of the card's rate: three times the FLOPs of a
forward pass per second, over those of a matrix product in bfloat16 that is timed in the same rounds.

The training loop: a Trainer's loader on packed shards, its objective and its stepper, driven here as its loop drives
them, against the same with a batch that lies on the device. Validation, checkpoints and lines of the log are left out.

Answers: clips of 0.5 to 10 s packed without padding against padding them; a cascade in which half of the clips go on
to the base size against that size for all; `flexiast predict` on a folder against the network alone; and the network
frozen and compiled, with CUDA graphs, against eager, for one clip and for a batch.

It takes a GPU whatever --device says, and without one stops; with --quick it also runs on a CPU, to see that it works.

python benchmarks/gpu.py        writes benchmarks/results/gpu.json and prints the ratios
"""

import copy
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frontend import RATE, torchaudio_fbank
from harness import Report, arguments, run
from lengths import clips_of, padded
from networks import shake
from sounds import write_sounds
from torch import Tensor

from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.classifier.cascade import ALWAYS, Rule, confidence
from flexiast.classifier.listening import Hearing, answers
from flexiast.cli import main as flexiast_command
from flexiast.data.audio import decode
from flexiast.data.dataset import Batch, load_batches
from flexiast.data.manifest import Labels, read_manifest
from flexiast.data.pack import pack
from flexiast.features import LogMel
from flexiast.models.config import SIZES, Loss
from flexiast.models.frozen import freeze
from flexiast.models.packed import forward_packed
from flexiast.runtime.distributed import World
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.bench import compiled
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
        packing(report)
        cascade(report)
        compiled_and_frozen(report)
        predict_folder(report, Path(folder))
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


def network(report: Report, loss: Loss = "bce") -> AudioClassifier:
    """The model of all groups, with random weights."""
    options = report.options
    torch.manual_seed(0)
    config = FlexiASTConfig(classes=527, frames=options.frames, **SIZES[options.model])
    model = AudioClassifier(config, FeatureConfig(frames=options.frames), Labels.numbers(527), loss)
    return shake(model).to(report.device)


def training_steps(report: Report) -> None:
    """Share of the matrix rate at each patch size, compiled blocks against eager ones, patch 48 against patch 8."""
    options, device = report.options, report.device
    model = network(report)
    config = model.config
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


@torch.no_grad()
def packing(report: Report) -> None:
    """Clips of many lengths in one pass, in bfloat16: packed, and padded to the longest."""
    options, model = report.options, network(report)
    lengths = torch.linspace(48, options.frames, options.batch).int().tolist()
    clips = clips_of(lengths, report.device)
    group = f"native length, {options.model}, patch {BASE}, {options.batch} clips of 48 to {options.frames} frames"
    whole = clips[-1:] * 2
    packed, batched = forward_packed(model, whole, BASE), model(torch.stack(whole), BASE)
    report.agree(f"{group}: packed, and a batch", packed, batched, within=1e-2)
    contenders = {
        "padded to the longest": lambda: model(padded(clips, options.frames, model), BASE),
        "packed": lambda: forward_packed(model, clips, BASE),
    }
    race_in_bf16(report, group, contenders, against="padded to the longest")


def race_in_bf16(report: Report, group: str, contenders: Mapping[str, Callable[[], Any]], against: str) -> None:
    """Time forward passes in bfloat16."""

    def lowered(forward: Callable[[], Any]) -> Callable[[], Any]:
        def run_once() -> Any:
            with torch.no_grad(), torch.autocast(report.device.type, torch.bfloat16):
                return forward()

        return run_once

    report.race(group, {name: lowered(forward) for name, forward in contenders.items()}, against)


def cascade(report: Report) -> None:
    """Waveforms to scores: half of the clips go on from a coarse size to the base, against the base for all."""
    options, model, coarse = report.options, network(report, "ce"), PatchSize(32, 32)
    generator = torch.Generator().manual_seed(0)
    length = model.feature_config.samples
    clips = list(0.1 * torch.randn(4 * options.batch, length, generator=generator).numpy())

    def scores(rule: Rule) -> Tensor:
        how = Hearing(batch_size=options.batch, precision="bf16", rule=rule)
        return torch.stack([answer.scores for answer in answers(model, clips, how)])

    half = float(np.median(confidence(scores(Rule((coarse,))).float().cpu().numpy(), "ce")))
    group = f"cascade, {options.model}, {len(clips)} clips, patch {coarse} then {BASE}"
    all_go_on = scores(Rule((coarse, BASE), (ALWAYS,)))
    report.agree(f"{group}: where all go on", all_go_on, scores(Rule((BASE,))), within=1e-2)
    contenders = {
        f"patch {BASE}": partial(scores, Rule((BASE,))),
        "half go on": partial(scores, Rule((coarse, BASE), (half,))),
        f"patch {coarse}": partial(scores, Rule((coarse,))),
    }
    report.race(group, contenders, against=f"patch {BASE}")


def compiled_and_frozen(report: Report) -> None:
    """Frozen and compiled with CUDA graphs, against eager; on a CPU only if --compile yes."""
    options, model = report.options, network(report)
    compile = options.compile == "yes" or (options.compile == "auto" and report.device.type == "cuda")
    for batch in (1, options.batch):
        log_mel = torch.randn(batch, options.frames, model.config.bins, device=report.device)
        contenders = {"flexible": partial(model, log_mel, BASE), "frozen": partial(freeze(model, BASE), log_mel)}
        if compile:
            contenders["frozen, compiled, CUDA graphs"] = partial(compiled(model, BASE), log_mel)
        group = f"one size, {options.model}, patch {BASE}, {batch} clips"
        with torch.no_grad(), torch.autocast(report.device.type, torch.bfloat16):
            expected = contenders["flexible"]().float()
            for name, forward in contenders.items():
                report.agree(f"{group}: {name}", forward().float(), expected, within=0.15)
        race_in_bf16(report, group, contenders, against="flexible")


def predict_folder(report: Report, folder: Path) -> None:
    """`flexiast predict` on a folder, from reading to the table, against the network alone on as many clips."""
    options, model = report.options, network(report, "ce")
    model.save_pretrained(folder / "model")
    sounds, table = folder / "sounds", folder / "answers.csv"  # those of the training loop
    words = ["predict", str(folder / "model"), str(sounds), "--out", str(table), "--overwrite", "--quiet", "--workers"]
    words += [str(options.workers), "--batch-size", str(options.batch), "--patch-size", str(BASE)]
    words += ["--device", str(report.device), "--precision", "bf16"]

    def predict() -> None:
        if flexiast_command(words):
            sys.exit("error: gpu: flexiast predict failed")

    frozen, files = freeze(model, BASE), [clip.path for clip in read_manifest(sounds).clips]
    few = files[: min(8, len(files))]
    features = model.feature_config
    heard = [decode(file, features.sample_rate, max_samples=features.samples) for file in few]
    lengths = torch.tensor([len(one) for one in heard])
    waveform = torch.nn.utils.rnn.pad_sequence(heard, batch_first=True)
    log_mel = model.front_end(waveform.to(report.device), lengths.to(report.device))
    with torch.no_grad():
        expected = frozen(log_mel).softmax(-1).max(dim=1).values
    predicted = [model.predict(str(file), BASE, top_k=1)[0].score for file in few]
    group = f"predict a folder, {options.model}, patch {BASE}, {len(files)} files"
    report.agree(f"{group}: best scores", predicted, expected, within=1e-3)
    batch = log_mel[:1].expand(options.batch, -1, -1).contiguous()

    def alone() -> None:
        with torch.no_grad(), torch.autocast(report.device.type, torch.bfloat16):
            for _ in range(-(-len(files) // options.batch)):
                frozen(batch)

    report.race(
        group, {"network alone": alone, "flexiast predict": predict}, "network alone", max(2, report.rounds // 4)
    )
    note(report, f"{group}: files/s", len(files) / seconds(report, group)["flexiast predict"])


if __name__ == "__main__":
    run(main)
