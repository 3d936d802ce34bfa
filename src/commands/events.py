"""`flexiast events`: find sounds in a long recording, or in a stream as it comes."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import soundfile
import soxr
import torch
import tyro
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.events import Event, EventOptions, Progress, Scan, scan
from ..classifier.inputs import as_rate, pieces_of
from ..classifier.listening import trained_sizes
from ..classifier.load import load
from ..errors import ConfigError
from ..models.geometry import PatchSize
from ..reports.events import as_row, events_file, require_events_file
from ..runtime.arguments import PatchArg, Precision
from ..runtime.bars import tqdm
from ..runtime.files import to_json_text
from ..runtime.output import Outcome, OutputOptions, show
from ..runtime.terminal import printable
from ..traintest.patch_plan import fitting

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EventsConfig(EventOptions, OutputOptions):
    """Find sounds in a long recording: scan it at a coarse patch size, listen again where something may be."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format."""
    recording: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]
    """Audio file of any length; with --follow, `-`: 16-bit little-endian PCM of one channel on standard input."""
    out: Path | None = None
    """File to write: *.csv, *.json, *.txt (labels for Audacity) or *.rttm (default: events are printed)."""
    overwrite: bool = False
    """Replace that file if it is there."""
    follow: bool = False
    """Read a stream from standard input, and print each event as soon as it is over."""
    sample_rate: int | None = None
    """Sample rate of that stream in Hz (default: the model's)."""
    coarse: PatchArg | None = None
    """Patch size that hears every window (default: the cheapest of the curve, or of the model's training)."""
    fine: PatchArg | None = None
    """Patch size that listens again (default: the curve's most accurate, or the model's base patch)."""
    refine: float = 0.1
    """Listen again to windows in which a class of interest scores at least this; 0: to all, above 1: to none."""
    unsure: float = 0.2
    """Listen again also to windows whose confidence, 0 to 1, is below this: the best class's lead over the second (of
    multi-label models 1 less the largest entropy of a class), with the curve's temperature; 0: to none for that."""
    batch_size: int = 16
    """Windows per forward pass; of a stream always 1."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16; `fp16` for GPUs without it."""

    def __post_init__(self) -> None:
        if self.out is not None:
            require_events_file(self.out, self.overwrite)
        if self.follow != (str(self.recording) == "-"):
            raise ConfigError(f"follow: found recording {self.recording}, expected --follow - for standard input")
        if self.sample_rate is not None:
            as_rate(self.sample_rate)
            if not self.follow:
                raise ConfigError("sample_rate: found it beside a file, which has its own, expected it with --follow")


def run(config: EventsConfig) -> Outcome:
    """Find the events; print them as they come, or write them, also if the work ends in an error or Ctrl-C."""
    model = load(config.checkpoint, config.device)
    how, rate = _scan(config, model), model.feature_config.sample_rate
    how.check(model)
    if config.follow:
        step = how.hop_frames(model.feature_config) * model.feature_config.hop
        pieces = pcm_pieces(sys.stdin.buffer, config.sample_rate or rate, rate, step)
    else:
        pieces = iter(pieces_of(config.recording, model.feature_config))
    done, start, found = Progress(), time.perf_counter(), 0
    total = None if config.follow else _seconds(config.recording)
    bar = tqdm(total=total, unit="s", desc="events", disable=config.quiet or not sys.stderr.isatty(), leave=False)
    try:
        with bar, _shown(config, done) as tell:
            for event in scan(model, _counted(pieces, bar, rate), how, done, str(config.recording)):
                tell(event)
                found += 1
    except KeyboardInterrupt:  # as a stream ends
        show(_outcome(config, done, found, time.perf_counter() - start), config)
        raise
    return _outcome(config, done, found, time.perf_counter() - start)


def _line(event: Event, as_json: bool) -> str:
    """An event as it is printed."""
    if as_json:
        return to_json_text(as_row(event))
    return f"{event.start:.2f}\t{event.end:.2f}\t{printable(event.label)}\t{event.score:.4f}"


@contextlib.contextmanager
def _shown(config: EventsConfig, done: Progress) -> Iterator[Callable[[Event], None]]:
    """Give a function that prints an event, or appends it to the file; none is kept in memory."""

    def printed(event: Event) -> None:
        tqdm.write(_line(event, config.json), file=sys.stdout)
        sys.stdout.flush()

    if config.out is None:
        yield printed
    else:
        with events_file(config.out, str(config.recording), lambda: done.windows > 0) as add:
            yield add


def _scan(config: EventsConfig, model: AudioClassifier) -> Scan:
    """The settings, with sizes from the curve or the training where none are given; they are logged."""
    curve, trained = model.curve, trained_sizes(model)
    if curve:
        cheap = min(curve.points, key=lambda point: point.gflops).patch_size
        good = max(curve.points, key=lambda point: point.score).patch_size
    else:
        cheap = min(fitting(trained, model), key=model.config.flops, default=model.config.patch_size)
        good = model.config.patch_size
    coarse = config.coarse or cheap
    fine: PatchSize | None = config.fine or good
    fine = None if fine == coarse or config.refine > 1 else fine
    doubtful = f"{config.refine:g}" + (" or is unsure" if config.unsure else "")
    again = f", {fine} hears again what scores {doubtful}" if fine else ""
    point = curve.point(coarse) if curve else None
    logger.info("patch size %s hears every window%s", coarse, again)
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(EventOptions)}
    return Scan(
        coarse=coarse, fine=fine, refine=min(config.refine, 1.0), unsure=config.unsure,
        temperature=point.temperature if point else 1.0, batch_size=1 if config.follow else config.batch_size,
        precision=config.precision, **options,
    )  # fmt: skip


def _counted(pieces: Iterator[Tensor], bar: tqdm, rate: int) -> Iterator[Tensor]:
    """The pieces, in parts of at most a second, while the bar moves."""
    for piece in pieces:
        for part in piece.split(rate):
            yield part
            bar.update(len(part) / rate)


def _seconds(recording: Path) -> float | None:
    """Length of a file, as far as libsndfile knows."""
    try:
        return float(soundfile.info(str(recording)).duration)
    except (RuntimeError, OSError):  # another format, or a fault that reading it will name
        return None


def pcm_pieces(stream: BinaryIO, source: int, rate: int, samples: int) -> Iterator[Tensor]:
    """A stream of 16-bit little-endian PCM, one channel, in parts of float32 samples (S,) at `rate` Hz.

    samples: of the source that are waited for at a time, at `rate`.
    """
    resampler = None if source == rate else soxr.ResampleStream(source, rate, 1, dtype="float32")
    wanted = 2 * max(1, samples * source // rate)
    while data := stream.read(wanted):
        last = len(data) < wanted
        if len(data) % 2:
            logger.warning("standard input: found half a sample at its end, expected 16-bit PCM; it is left out")
            data = data[:-1]
        part = np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768
        part = part if resampler is None else resampler.resample_chunk(part, last=last)
        yield torch.from_numpy(np.ascontiguousarray(part))
        if last:
            return
    if resampler is not None:
        yield torch.from_numpy(np.ascontiguousarray(resampler.resample_chunk(np.zeros(0, np.float32), last=True)))


def _outcome(config: EventsConfig, done: Progress, events: int, took: float) -> Outcome:
    """How much was scanned, and how fast."""
    if not done.windows:
        return Outcome(results={"events": 0, "recording_seconds": 0.0}, streamed=config.out is None)
    factor = took / done.seconds
    return Outcome(
        written=config.out,
        summary={
            "events": f"{events:,} in {done.seconds:.1f} s",
            "real-time factor": f"{factor:.3f}",
            "heard again": f"{done.refined:,} of {done.windows:,} windows",
        },
        results={"events": events, "recording_seconds": done.seconds, "real_time_factor": factor},
        streamed=config.out is None,
    )


CONFIG = EventsConfig
