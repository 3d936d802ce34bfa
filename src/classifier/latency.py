"""How long one clip takes at each patch size on this machine: measured once, then kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import FileError
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from ..runtime.device import resolve_precision, synchronise
from ..runtime.files import to_json_text, write_atomically
from ..runtime.provenance import hardware
from .listening import Hearing, Listener, answers, in_precision, windows_of

logger = logging.getLogger(__name__)
MOST_PASSES, LEAST_PASSES, WARM_UP, SECONDS = 103, 8, 3, 2.0
"""Passes for each size: as many as fit into the seconds, within these bounds; the first ones warm up."""
HEADROOM = 1.1
FRONT_END = "front end"
"""Its name among the sizes, where times are kept."""


class Times(NamedTuple):
    """Seconds on one machine."""

    front_end: float
    """From waveform to log-mel, the median; 0 where it was not measured."""
    sizes: dict[PatchSize, float]
    """From waveform to scores at each size, see `measure_seconds`."""

    def mean(self, sizes: Sequence[PatchSize], reach: Sequence[float]) -> float:
        """Seconds of a clip on average, of which shares `reach` are heard at these sizes; the log-mel is made once."""
        looks = sum(
            share * max(0.0, self.sizes[size] - self.front_end) for size, share in zip(sizes, reach, strict=True)
        )
        return self.front_end + looks

    def to_json(self) -> dict[str, float]:
        """By name of the size."""
        return {FRONT_END: self.front_end} | {str(size): seconds for size, seconds in self.sizes.items()}


def machine(device: torch.device, precision: Precision = "fp32") -> str:
    """The name under which times are kept: processor, threads, GPU and precision."""
    values = [str(value) for value in hardware(device).values()]
    return ", ".join([*values, resolve_precision(device, precision)])


def measure_seconds(
    model: Listener, patches: Sequence[PatchSize], precision: Precision = "fp32", seconds: float = SECONDS
) -> Times:
    """Seconds from waveform to scores, as `predict` hears one clip alone, that 95 % of passes keep within.

    A tenth is added, as a machine is busier at other times. seconds: how long each size is timed, if that gives at
    least 8 passes.
    """
    features = model.feature_config
    waveform = torch.randn(features.samples, generator=torch.Generator().manual_seed(0)) * 0.1
    runs: list[Callable[[], object]] = [partial(_front_end, model, waveform, Hearing(patches[0], precision=precision))]
    runs += [partial(_whole, model, waveform, Hearing(patch, precision=precision)) for patch in patches]
    times: list[list[float]] = [[] for _ in runs]
    began = time.perf_counter()
    for number in range(MOST_PASSES):  # all sizes in turn, so that what else the machine does falls on all of them
        if number >= LEAST_PASSES and time.perf_counter() - began > seconds * len(runs):
            break
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    front_end, *sizes = (np.array(taken[WARM_UP:]) for taken in times)
    whole = [HEADROOM * float(np.percentile(taken, 95, method="higher")) for taken in sizes]
    return Times(float(np.median(front_end)), dict(zip(patches, whole, strict=True)))


def _whole(model: Listener, waveform: Tensor, how: Hearing) -> None:
    list(answers(model, [waveform], how))


@torch.no_grad()
def _front_end(model: Listener, waveform: Tensor, how: Hearing) -> None:
    """What a clip's looks share."""
    with in_precision(model, how.precision):
        for batch in windows_of(model, [waveform], how):
            model.front_end(*batch.on(model.kernel.device))
    synchronise(model.kernel.device)


def seconds_of(
    model: Listener, patches: Sequence[PatchSize], kept: dict[str, dict[str, float]], precision: Precision = "fp32"
) -> Times:
    """Seconds at each size on this machine: from the checkpoint's curve, the user's cache, or a measurement now."""
    here = machine(model.kernel.device, precision)
    known = dict(kept.get(here, {}))
    if not all(str(patch) in known for patch in patches):
        known |= _read(cache_file()).get(_key(model, here), {})
    missing = [patch for patch in patches if str(patch) not in known]
    if missing:
        logger.info(
            "timing %d patch sizes on this %s, once; kept in %s", len(missing), model.kernel.device.type, cache_file()
        )
        measured = measure_seconds(model, missing, precision)
        known |= measured.to_json()
        remember(model, measured, precision)
    return Times(known.get(FRONT_END, 0.0), {patch: known[str(patch)] for patch in patches})


def remember(model: Listener, times: Times, precision: Precision = "fp32") -> None:
    """Keep times of this machine in the user's cache, where they replace older ones of the same sizes."""
    path = cache_file()
    cached = _read(path)
    cached.setdefault(_key(model, machine(model.kernel.device, precision)), {}).update(times.to_json())
    try:
        write_atomically(path, to_json_text(cached).encode())
    except FileError as error:
        logger.warning("%s; times are measured again next time", error)


def cache_file() -> Path:
    """Where times are kept: latency.json in flexiast's folder of the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexiast" / "latency.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _key(model: Listener, here: str) -> str:
    """Machine and architecture: time does not depend on the weights."""
    return hashlib.sha256(f"{here}\n{model.config}\n{model.feature_config}".encode()).hexdigest()[:16]
