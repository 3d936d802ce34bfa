"""What the page of `flexiast demo` shows of a sound: its classes at a size, within a budget or by a cascade, and costs.

Of a model that predicts numbers it shows the values of the targets, at a size or within a budget.

Dimensions: S samples, T frames, F mel bins.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.curve import Curve
from ..classifier.listening import trained_elsewhere
from ..classifier.results import Predictions
from ..data.audio import decode
from ..data.windows import excerpts
from ..errors import ConfigError, DataError, FileError
from ..models.geometry import EVERY_SIZE, Layout, PatchSize
from ..runtime.device import synchronise
from ..runtime.terminal import printable
from ..traintest.patch_plan import fitting

LADDER = tuple(PatchSize(side, side) for side in (8, 12, 16, 24, 32, 48))
"""Patch sizes that are compared, where they fit."""
OWN_CASCADE = (48, 24, 12)
"""Sides of the patches of a cascade for models without a curve, where they fit."""
MOST_SOUNDS = 8
"""Sounds whose rows are kept."""
LEAST_PASSES, MOST_PASSES, SECONDS = 2, 9, 2.0
"""Passes of which the median is the time of a size: as many as fit into the seconds, within these bounds."""
TOP = 5
Mode = Literal["size", "budget", "cascade"]


class Sound(NamedTuple):
    """A clip at the rate of the model."""

    name: str
    """Printable name of its file."""
    waveform: Tensor
    """(S,) mono, at the model's rate."""
    key: str
    """A digest of the samples."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """How a sound is to be scored."""

    mode: Mode = "size"
    patch_size: int = 16
    """Side of the patches, for `size`."""
    milliseconds: float = 20.0
    """For each window, for `budget`."""
    confidence: float = 0.9
    """A cascade goes on below it, from 0 to 1; for a `cascade` of models without a curve."""


class Heard(NamedTuple):
    """The answer for a sound, and what its pictures show: one window, and the size that heard it last."""

    best: Predictions
    """The best classes of the whole clip, best first; of a regression every target and its value, in their order."""
    windows: int
    """Windows that the clip was heard in."""
    start: float
    """Seconds at which the window that is shown starts."""
    end: float
    log_mel: Tensor
    """(T, F) normalised."""
    sounding: int
    """Frames of the window before its padding."""
    layout: Layout
    attention: Tensor
    """(T, F) weights from 0 to 1, see `FlexiAST.attention`."""
    notes: tuple[str, ...]
    """What else there is to say, in words."""
    numbers: bool = False
    """Whether these are values of targets, not probabilities of classes."""


class Row(NamedTuple):
    """What one patch size costs for a window, and what it makes of the whole clip."""

    patch_size: PatchSize
    tokens: int
    gflops: float
    milliseconds: float
    """From waveform to scores of one window alone, on this machine: the median of some passes."""
    best: Predictions
    """The best class, or every target with its value."""


class ListeningRoom:
    """A model that answers for one page after another, one at a time.

    Raises ConfigError if no patch size from 8 to 48 fits the model.
    """

    def __init__(self, model: AudioClassifier, max_seconds: float = 60.0, max_megabytes: float = 20.0) -> None:
        self.model, self.max_seconds, self.max_megabytes = model, max_seconds, max_megabytes
        self.sizes = fitting(EVERY_SIZE, model)
        if not self.sizes:
            raise ConfigError("patch size: found none from 8 to 48 that fits the model's input, expected one at least")
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, dict[PatchSize, Row]] = OrderedDict()
        self._milliseconds: dict[PatchSize, float] = {}

    @property
    def curve(self) -> Curve | None:
        """What `flexiast curve` measured, if it did."""
        return self.model.curve

    @property
    def numbers(self) -> bool:
        """Whether the model predicts numbers, which have no confidence and so no cascade."""
        return self.model.loss == "mse"

    @property
    def own_cascade(self) -> tuple[PatchSize, ...]:
        """From coarse to fine: the sizes of the cascade if there is no curve to take one from."""
        return fitting([PatchSize(side, side) for side in OWN_CASCADE], self.model) or self.sizes[-1:]

    @property
    def first_size(self) -> int:
        """The side to begin with: the model's base patch, or the nearest that fits."""
        return min((size.freq for size in self.sizes), key=lambda side: abs(side - self.model.config.patch_size[0]))

    def read(self, path: str | Path) -> Sound:
        """Read an audio file. Raises DataError, with its name alone, if it is unusable, too large or too long."""
        name, features = printable(os.path.basename(path)), self.model.feature_config
        try:
            megabytes = os.path.getsize(path) / 1e6
            if megabytes > self.max_megabytes:
                raise DataError(f"{name}: found {megabytes:.1f} MB, expected at most {self.max_megabytes:g} MB")
            most, reasons = int(self.max_seconds * features.sample_rate), list[str]()
            waveform = decode(
                Path(path), features.sample_rate, features.downmix, most + 1,
                resampler=features.resampler, suspicions=reasons,
            )  # fmt: skip
        except (DataError, FileError) as error:
            raise DataError(str(error).replace(os.fspath(path), name)) from None
        except OSError as error:
            raise DataError(f"{name}: not readable ({error.strerror})") from None
        if len(waveform) > most:
            raise DataError(f"{name}: found more than {self.max_seconds:g} s of sound, expected at most that")
        if silent := [reason for reason in reasons if "silence" in reason]:
            raise DataError(f"{name}: found {silent[0]}, expected sound; is the microphone on?")
        return Sound(name, waveform, hashlib.sha256(waveform.numpy().tobytes()).hexdigest())

    def hear(self, sound: Sound, wish: Wish) -> Heard:
        """The answer to a wish. Raises DataError for an unusable clip, ConfigError for what does not fit the model."""
        with self._lock:
            parts = list(excerpts([sound.waveform], self.model.feature_config, name=sound.name))
            best = self.model.predict(sound.waveform, top_k=TOP, **self._arguments(wish))
            patch = best.patch_sizes[-1]
            if self.numbers or len(parts) == 1:
                shown = max(range(len(parts)), key=lambda place: float(parts[place].waveform.square().mean()))
            else:
                shown = self._clearest(sound, best[0].label, patch)
            start, end, waveform = parts[shown]
            with torch.no_grad():
                log_mel = self.model.front_end(waveform[None].to(self.model.kernel.device))
                attention = self.model.attention(log_mel, patch)
            features = self.model.feature_config
            sounding = min(features.frames, features.frame_count(len(waveform)))
            layout = self.model.config.layout(patch, features.frames)
            return Heard(
                best, len(parts), start, end, log_mel[0].cpu(), sounding, layout, attention[0].float().cpu(),
                self._notes(best, wish), self.numbers,
            )  # fmt: skip

    def knows(self, sound: Sound) -> bool:
        """Whether the rows of the ladder are there already, so that `compare` takes no time."""
        return self._rows.get(sound.key, {}).keys() >= set(fitting(LADDER, self.model))

    def compare(self, sound: Sound, also: Sequence[PatchSize] = (), ladder: bool = True) -> list[Row]:
        """The sound at some sizes, from fine to coarse: those of `also` and, with `ladder`, the ladder's.

        Raises as `hear` does.
        """
        sizes = sorted({*(fitting(LADDER, self.model) if ladder else ()), *also})
        with self._lock:
            rows = self._rows.setdefault(sound.key, {})
            self._rows.move_to_end(sound.key)
            while len(self._rows) > MOST_SOUNDS:
                self._rows.popitem(last=False)
            self._time(sizes)
            for size in sizes:
                if size not in rows:
                    rows[size] = self._row(sound, size)
            return [rows[size] for size in sizes]

    def _arguments(self, wish: Wish) -> dict[str, Any]:
        """What `predict` is to be told."""
        if wish.mode == "size":
            return {"patch_size": wish.patch_size}
        if wish.mode == "budget":
            return {"budget": f"{wish.milliseconds:g}ms"}
        if self.curve:
            return {"cascade": "auto"}
        return {"cascade": [str(size) for size in self.own_cascade], "threshold": wish.confidence}

    def _notes(self, best: Predictions, wish: Wish) -> tuple[str, ...]:
        notes = []
        if wish.mode == "cascade" and not self.curve:
            notes.append(
                f"cascade {' > '.join(map(str, self.own_cascade))}, on to the next size below a confidence of"
                f" {wish.confidence:g}; flexiast curve finds the best sizes and confidences"
            )
        elif best.choice is not None:
            notes.append(f"chosen: {best.choice}")
        for size in best.patch_sizes:
            if trained := trained_elsewhere(self.model, size):
                what = "values" if self.numbers else "scores"
                notes.append(f"trained at {trained}: the {what} at {size} are not to be trusted")
        return tuple(notes)

    def _clearest(self, sound: Sound, label: str, patch: PatchSize) -> int:
        """The window in which a class scores highest."""
        windows = self.model.predict_windows(sound.waveform, patch)
        number = self.model.labels.names.index(label)
        return max(range(len(windows)), key=lambda place: float(windows[place].scores[number]))

    def _row(self, sound: Sound, size: PatchSize) -> Row:
        frames = self.model.feature_config.frames
        tokens = self.model.config.grid(size, frames).tokens
        best = self.model.predict(sound.waveform, size, top_k=1)
        return Row(size, tokens, self.model.config.flops(size, frames) / 1e9, self._milliseconds[size], best)

    def _time(self, sizes: Sequence[PatchSize]) -> None:
        """Measure the milliseconds of one window at sizes that were not timed yet, in turns."""
        took: dict[PatchSize, list[float]] = {size: [] for size in sizes if size not in self._milliseconds}
        if not took:
            return
        features, device = self.model.feature_config, self.model.kernel.device
        window = 0.1 * torch.randn(1, features.samples, generator=torch.Generator().manual_seed(0)).to(device)
        start = time.perf_counter()
        for number in range(1 + MOST_PASSES):  # the first one warms up
            if number > LEAST_PASSES and time.perf_counter() - start > SECONDS:
                break
            for size, times in took.items():
                synchronise(device)
                began = time.perf_counter()
                with torch.no_grad():
                    self.model.probabilities(self.model(self.model.front_end(window), size)).cpu()
                times.append(1e3 * (time.perf_counter() - began))
        self._milliseconds |= {size: statistics.median(times[1:]) for size, times in took.items()}
