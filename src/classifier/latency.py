"""How long one clip takes at each patch size on this machine: measured once, then kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import FileError
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from ..runtime.device import resolve_precision
from ..runtime.files import to_json_text, write_atomically
from ..runtime.provenance import hardware
from .listening import Hearing, Listener, answers

logger = logging.getLogger(__name__)
MOST_PASSES, LEAST_PASSES, WARM_UP, SECONDS = 103, 8, 3, 2.0
"""Passes for each size: as many as fit into the seconds, within these bounds; the first ones warm up."""
HEADROOM = 1.1


def machine(device: torch.device, precision: Precision = "fp32") -> str:
    """The name under which times are kept: processor, threads, GPU and precision."""
    values = [str(value) for value in hardware(device).values()]
    return ", ".join([*values, resolve_precision(device, precision)])


def measure_seconds(
    model: Listener, patches: Sequence[PatchSize], precision: Precision = "fp32"
) -> dict[PatchSize, float]:
    """Seconds from waveform to scores, as `predict` hears one clip alone, that 95 % of passes keep within.

    A tenth is added, as a machine is busier at other times.
    """
    features = model.feature_config
    waveform = torch.randn(features.samples, generator=torch.Generator().manual_seed(0)) * 0.1
    times: dict[PatchSize, list[float]] = {patch: [] for patch in patches}
    began = time.perf_counter()
    for number in range(MOST_PASSES):  # all sizes in turn, so that what else the machine does falls on all of them
        if number >= LEAST_PASSES and time.perf_counter() - began > SECONDS * len(patches):
            break
        for patch, of_patch in times.items():
            start = time.perf_counter()
            list(answers(model, [waveform], Hearing(patch, precision=precision)))
            of_patch.append(time.perf_counter() - start)
    return {patch: HEADROOM * float(np.percentile(t[WARM_UP:], 95, method="higher")) for patch, t in times.items()}


def seconds_of(
    model: Listener, patches: Sequence[PatchSize], kept: dict[str, dict[str, float]], precision: Precision = "fp32"
) -> dict[PatchSize, float]:
    """Seconds at each size on this machine: from the checkpoint's curve, the user's cache, or a measurement now."""
    here, device = machine(model.kernel.device, precision), model.kernel.device
    known = dict(kept.get(here, {}))
    if all(str(patch) in known for patch in patches):
        return {patch: known[str(patch)] for patch in patches}
    path = cache_file()
    cached = _read(path)
    known |= cached.setdefault(_key(model, here), {})
    missing = [patch for patch in patches if str(patch) not in known]
    if missing:
        logger.info("timing %d patch sizes on this %s, once; kept in %s", len(missing), device.type, path)
        measured = {str(patch): seconds for patch, seconds in measure_seconds(model, missing, precision).items()}
        known |= measured
        cached[_key(model, here)] |= measured
        try:
            write_atomically(path, to_json_text(cached).encode())
        except FileError as error:
            logger.warning("%s; the times are measured again next time", error)
    return {patch: known[str(patch)] for patch in patches}


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
