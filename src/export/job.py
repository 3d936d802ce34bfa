"""What all exports share: what is to be exported, its inputs, and the comparison with the model.

Dimensions: B clips, S samples, T frames, F mel bins, C classes.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..errors import ConfigError, FileError, FlexiASTError
from ..models.geometry import PatchSize
from ..runtime.extras import optional
from ..runtime.files import put_in_place, require_new, told_as

Input = Literal["waveform", "spectrogram"]


class ExportError(FlexiASTError):
    """An export's results differ from the model's, or a package that it needs is missing."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export that was run and agrees with the model."""

    path: Path
    """The file or directory."""
    difference: float
    """Largest absolute difference of its logits from the model's."""
    runtime: str
    """The runtime that ran it, with its version."""


class Job(NamedTuple):
    """What to export."""

    model: AudioClassifier
    patches: tuple[PatchSize, ...]
    """One size, or several in one file."""
    input: Input

    @property
    def patch(self) -> PatchSize:
        """The only size, or the first."""
        return self.patches[0]

    @property
    def native(self) -> bool:
        """Whether short clips are heard at their own length."""
        return self.model.feature_config.length == "native"

    @property
    def inputs(self) -> dict[str, str]:
        """Inputs of onnx and torch exports, by name and in order, with what they are."""
        if self.input == "waveform":
            inputs = {
                "waveform": "float32 (batch, samples) in [-1, 1]; what is longer than the window is cut to it",
                "lengths": "int64 (batch,): samples of each clip, without padding",
            }
        else:
            inputs = {"log_mel": "float32 (batch, frames, bins), normalised"}
            if self.native:
                inputs["lengths"] = "int64 (batch,): frames of each clip, without padding"
        if len(self.patches) > 1:
            inputs["patch"] = "int64 scalar: place of the patch size in flexiast.patch_sizes, from 0"
        return inputs

    def given(self, waveform: Tensor, lengths: Tensor, number: int = 0) -> dict[str, Tensor]:
        """Those inputs for waveforms (B, S), their lengths (B,) in samples, and the patch size of this number."""
        inputs = {"waveform": waveform, "lengths": lengths}
        if self.input == "spectrogram":
            log_mel, frames = self.model.front_end(waveform, lengths), self.model.feature_config.frame_count(lengths)
            inputs = {"log_mel": log_mel, "lengths": frames}
        inputs["patch"] = torch.tensor(number)
        return {name: inputs[name] for name in self.inputs}


def needed(module: str) -> Any:
    """Import an optional package. Raises ExportError, which says what to install, if it is missing."""
    try:
        return optional(module, "export")
    except ConfigError as error:
        raise ExportError(str(error)) from None


def clips(model: AudioClassifier) -> list[Tensor]:
    """Waveforms (B, S) for the comparison: three clips of one window, one shorter clip, one longer clip."""
    features, generator = model.feature_config, torch.Generator().manual_seed(0)
    time = torch.arange(features.samples) / features.sample_rate
    sweep = 0.3 * torch.sin(2 * torch.pi * (100 + 0.2 * features.sample_rate * time / time[-1]) * time)
    noise = torch.randn(3, features.samples, generator=generator) * torch.tensor([0.1, 0.001, 0.01])[:, None]
    noise[2] += sweep
    return [noise, noise[2:, : features.samples // 2], torch.cat([noise[:1], noise[1:2]], dim=1)]


@torch.no_grad()
def program_difference(job: Job, run: Callable[[dict[str, Tensor]], Tensor]) -> float:
    """Largest difference of `run`'s logits from the model's over `clips` and sizes, the last of a batch shorter.

    run: from the inputs by name to logits (B, C).
    """
    worst = 0.0
    for waveform in clips(job.model):
        lengths = torch.full((len(waveform),), waveform.shape[1])
        lengths[-1] = 3 * waveform.shape[1] // 4
        heard = job.model.front_end.as_trained(waveform, lengths)
        for number, patch in enumerate(job.patches):
            logits = run(job.given(waveform, lengths, number))
            worst = max(worst, largest(logits - job.model(heard, patch)))
    return worst


def largest(differences: Tensor) -> float:
    """The largest absolute value; infinite if one is not a number."""
    return float(differences.abs().max().nan_to_num(torch.inf))


@contextmanager
def placed(out: Path, overwrite: bool, ours: Collection[str] = ()) -> Iterator[Path]:
    """A path of that name in a temporary folder next to `out`; what is there at the end is moved to `out`.

    Nothing stays after an error, and errors name `out`. Raises ConfigError as `require_new` does, FileError for a full
    disk or a folder that cannot be written to.
    """
    require_new(out, overwrite, ours)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{out.name}.part-", dir=out.parent))
    except OSError as error:
        raise FileError(f"{out}: not writable ({error.strerror})") from None
    part = beside / out.name
    try:
        with told_as(out, part):
            yield part
        put_in_place(part, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
