#!/usr/bin/env python3
"""Training a small model on a CPU, from files to new weights: our loop against a plain one, and where the time goes.

The plain loop is what one would write: a DataLoader whose data set reads a file and computes torchaudio's log-mel,
SpecAugment and a shift in time; timm's ViT of the same weights; AdamW. Ours is a Trainer's loader, objective and
stepper with the same settings, driven here as its loop drives them; validation, checkpoints and lines of the log are
left out of both. One thread each, without workers and with one that reads.

The parts of a step are those of the demo's flexible stage (egs/demo/run.sh): a size drawn for every step, a shift in
time as the only augmentation.

python benchmarks/training.py        writes benchmarks/results/training.json and prints the ratios
"""

import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from folder import Waveforms
from harness import Report, arguments, run
from networks import StaticViT, shake
from sounds import write_sounds
from torch import Tensor
from torch.utils.data import DataLoader

from flexiast import AudioClassifier, PatchSize
from flexiast.data.dataset import Batch, load_batches
from flexiast.models.resize import resize_kernel
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, FeatureOptions, ModelOptions, OptimConfig, PatchOptions
from flexiast.traintest.train import Trainer

BASE = PatchSize(16, 16)
SIZES = tuple(PatchSize(side, side) for side in (8, 10, 12, 16, 20, 24, 32, 40, 48))
WEIGHTS = (3, 4, 7, 18, 13, 13, 14, 14, 14)
OPTIM = OptimConfig(name="adamw", lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, schedule="constant", clip_norm=0)
PLAIN = AugmentConfig(freq_mask=0, time_mask=0, noise=0, mixup=0, roll=0)
MASKED = AugmentConfig(freq_mask=24, time_mask=12, noise=0, mixup=0, roll=4)
SHIFTED = AugmentConfig(freq_mask=0, time_mask=0, noise=0, mixup=0, roll=4)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "micro", "micro, tiny, small or base"),
        frames=(int, 96, "frames of a clip"),
        clips=(int, 512, "files of a second"),
        batch=(int, 16, "clips of a step"),
        steps=(int, 40, "steps in a round"),
    )
    if options.quick:
        options.clips, options.batch, options.steps = 16, 4, 2
    report = Report("training", options, rounds=9, threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_sounds(Path(temporary) / "sounds", options.clips, 1.0, 16_000, 1, ".wav")
        make = partial(trainer, options, folder)
        compare(report, make(PLAIN), make(PLAIN))
        for workers in (0, 1):
            ours, theirs = make(MASKED, workers), PlainLoop(make(MASKED), options.batch, MASKED, workers)
            batches, patches = endless(ours), [BASE]
            contenders: dict[str, Callable[[], Any]] = {
                "plain loop, timm": partial(theirs.train, options.steps),
                "flexiast": partial(train, ours, batches, itertools.repeat(patches), options.steps),
            }
            group = f"{options.model}, patch {BASE}, {options.steps} steps of {options.batch} clips, {workers} workers"
            report.race(group, contenders, against="plain loop, timm")
            clips = options.steps * options.batch
            for row in report.rows[-2:]:
                report.facts[f"{group}: {row['contender']}, clips/s"] = round(1e3 * clips / row["median_ms"])
            theirs.close()
        parts_of_a_step(report, make(SHIFTED, sizes=SIZES))
    report.finish()


def trainer(
    options: Any, folder: Path, augment: AugmentConfig, workers: int = 0, sizes: tuple[PatchSize, ...] = (BASE,)
) -> Trainer:
    """A training of the demo's kind on these files; nothing of it is written."""
    config = TrainConfig(
        DataConfig(folder, batch_size=options.batch, workers=workers),
        out=folder.parent / "run",
        features=FeatureOptions(frames=options.frames),
        model=ModelOptions(size=options.model, pool="cls", coverage="pad"),
        loss="ce",
        augment=augment,
        optim=OPTIM,
        patches=PatchOptions(sizes=sizes, weights=WEIGHTS if len(sizes) > 1 else ()),
        epochs=1000.0,
        threads=1,
        precision="fp32",
        log="none",
        device=options.device,
    )
    made = Trainer(config, progress=False)
    shake(made.model)
    return made


def endless(made: Trainer) -> Iterator[Batch]:
    """The batches of a training, in its order."""
    draws = map(made.plan.schedule.__getitem__, itertools.count())
    return load_batches(made.dataset, draws, made.config.data.workers, made.config.data.timeout)


def train(made: Trainer, batches: Iterator[Batch], patches: Iterator[Sequence[PatchSize]], steps: int) -> float:
    """So many steps of ours; the last loss."""
    loss = float("nan")
    for batch in itertools.islice(batches, steps):
        loss, _ = made.stepper.step(made.objective.prepare(batch), next(patches), 1.0)
    return loss


class AugmentedClips(Waveforms):
    """The log-mel (T, F) of a file, augmented, and its class."""

    def __init__(
        self, files: Sequence[Path], classes: Sequence[int], model: AudioClassifier, how: AugmentConfig
    ) -> None:
        super().__init__(files, model)
        self.classes, self.how = classes, how
        self.masks = [
            torchaudio.transforms.FrequencyMasking(int(how.freq_mask)),
            torchaudio.transforms.TimeMasking(int(how.time_mask)),
        ]

    def __getitem__(self, number: int) -> tuple[Tensor, int]:  # type: ignore[override]
        log_mel = super().__getitem__(number)
        if self.how.freq_mask:
            masked = log_mel.T[None]
            for mask in self.masks:
                masked = mask(masked)
            log_mel = masked[0].T
        if roll := int(self.how.roll):
            log_mel = log_mel.roll(int(torch.randint(-roll, roll + 1, ())), dims=0)
        return log_mel, self.classes[number]


class PlainLoop:
    """PyTorch, timm and torchaudio, on the clips and with the weights of one of our trainings."""

    def __init__(self, made: Trainer, batch: int, how: AugmentConfig, workers: int) -> None:
        targets = made.train_data.targets(range(len(made.train_data))).argmax(axis=1).tolist()
        files = [Path(str(clip.path)) for clip in made.train_data.clips]
        clips = AugmentedClips(files, targets, made.model, how)
        self.loader: DataLoader = DataLoader(
            clips, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.device = made.model.kernel.device
        self.network = StaticViT(made.model, BASE).to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), OPTIM.lr, OPTIM.betas, weight_decay=OPTIM.weight_decay
        )
        self.batches = self._endless()

    def _endless(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            yield from self.loader

    def step(self, log_mel: Tensor, classes: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.network(log_mel.to(self.device)), classes.to(self.device))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def train(self, steps: int) -> float:
        """So many steps; the last loss."""
        loss = float("nan")
        for log_mel, classes in itertools.islice(self.batches, steps):
            loss = self.step(log_mel, classes)
        return loss

    def close(self) -> None:
        """End the workers."""
        self.batches.close()
        del self.loader


def compare(report: Report, made: Trainer, same: Trainer) -> None:
    """Without augmentation, the losses of both loops over a few steps of the same clips."""
    same.model.load_state_dict(made.model.state_dict())
    plain = PlainLoop(same, report.options.batch, PLAIN, 0)
    dataset, ours, theirs = plain.loader.dataset, [], []
    for batch in itertools.islice(endless(made), 3):
        log_mel, classes = zip(*(dataset[clip] for clip in batch.clips.tolist()), strict=True)
        ours.append(made.stepper.step(made.objective.prepare(batch), [BASE], 1.0)[0])
        theirs.append(plain.step(torch.stack(log_mel), torch.tensor(classes)))
    report.agree("losses of three steps", ours, theirs, within=1e-3)


def parts_of_a_step(report: Report, made: Trainer) -> None:
    """The time of each part of our loop's steps, each at the patch size drawn for it."""
    objective, stepper, seconds = made.objective, made.stepper, defaultdict[str, float](float)
    batches, steps = endless(made), 4 * report.options.steps
    made.model.train()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] += time.perf_counter() - start
        return result

    for number in range(steps + 5):
        if number == 5:  # the first ones are to warm up
            seconds.clear()
        batch = timed("read the files", lambda: next(batches))
        timed("log-mel", partial(objective.front_end.raw, *batch.on(objective.device)[:2]))
        inputs = timed("log-mel and augmentation", partial(objective.prepare, batch))
        patch = made.plan.patches[number][0]
        stepper.optimizers[0].zero_grad()
        loss = timed("forward", partial(objective, made.model, inputs, patch))
        timed("backward", loss.backward)
        timed("optimizer", stepper.optimizers[0].step)
    seconds["augmentation"] = seconds.pop("log-mel and augmentation") - seconds["log-mel"]
    for number in range(5, steps + 5):
        timed("resizing, of the forward pass", partial(resizing, made, made.plan.patches[number][0]))
    whole = sum(taken for name, taken in seconds.items() if "," not in name)
    group = f"{report.options.model}, sizes drawn, a step of {report.options.batch} clips"
    report.facts[f"{group}, ms"] = {name: round(1e3 * taken / steps, 2) for name, taken in seconds.items()}
    report.facts[f"{group}, %"] = {name: round(100 * taken / whole, 1) for name, taken in seconds.items()}
    report.facts[f"{group}: clips/s"] = round(steps * report.options.batch / whole)


def resizing(made: Trainer, patch: PatchSize) -> None:
    """Kernel and positions of a patch size."""
    frames = made.model.feature_config.frames
    resize_kernel(made.model.kernel, patch)
    made.model.positions(made.model.config.layout(patch, frames), frames)


if __name__ == "__main__":
    run(main)
