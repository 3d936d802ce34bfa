"""`flexiast bench`: what each patch size of a model costs on this machine, as table, CSV, JSON and picture."""

from __future__ import annotations

import ctypes
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..models.frozen import freeze
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from ..runtime.device import autocast, synchronise
from .metrics import metric_of


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one patch size costs."""

    patch_size: str
    """As on the command line."""
    tokens: int
    """Patch tokens of a clip."""
    gflops: float
    """10^9 floating-point operations of a clip's forward pass."""
    clips_per_second: float
    """Log-mel to logits, in batches."""
    latency_p50_ms: float
    """Median time of one clip alone."""
    latency_p95_ms: float
    """95th percentile of the time of one clip alone."""
    peak_memory_mb: float | None
    """Most memory that a batch adds to the process at rest, 10^6 bytes (none where the system does not report it)."""
    roofline_clips_per_second: float
    """Bound by measured matrix rate and memory bandwidth, see `roofline`."""
    score: float | None
    """Validation accuracy (single-label models) or mAP kept in the checkpoint, if it has one for this size."""


@dataclasses.dataclass(frozen=True)
class OnnxCost:
    """What one patch size costs in ONNX Runtime."""

    weights: str
    """float32 or int8."""
    patch_size: str
    """As on the command line."""
    tokens: int
    """Patch tokens of a clip."""
    clips_per_second: float
    """Log-mel to logits, in batches."""
    latency_p50_ms: float
    """Median time of one clip alone."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that was measured."""

    costs: tuple[Cost, ...]
    growth: float | None
    """Exponent k of seconds per clip ~ tokens^k, fitted over the sizes (none for less than two counts of tokens)."""
    gflops_per_second: float
    """Rate of a large matrix product at the precision used."""
    gigabytes_per_second: float
    """Rate of copying a large tensor, bytes read and bytes written together."""
    front_end_ms: float
    """Waveform to log-mel, one clip."""
    score_name: str
    """accuracy or mAP."""
    onnx: tuple[OnnxCost, ...] = ()
    """ONNX Runtime on our exports, see `bench_onnx`; empty where that was not asked for."""


@torch.no_grad()  # not inference mode, in which autocast casts every weight anew in every call
def measure_costs(
    model: AudioClassifier,
    patch_sizes: Sequence[PatchSize],
    batch_size: int = 8,
    seconds: float = 2.0,
    precision: Precision = "auto",
    compile: bool = False,
) -> Bench:
    """Time the model at each patch size. The arguments are the options of `flexiast bench`."""
    device = model.kernel.device
    waveform = torch.randn(batch_size, model.feature_config.samples, device=device)
    with autocast(device, precision):
        rate, bandwidth = matrix_rate(device), copy_rate(device)
        front_end = times_of(lambda: model.front_end(waveform[:1]), seconds / 4, device)
        batch = model.front_end(waveform)
        costs = []
        for patch in patch_sizes:
            _reset_peak_memory(device)
            at_rest = _memory(device, "now")
            network = compiled(model, patch) if compile else partial(model, patch_size=patch)
            passes = times_of(partial(network, batch), seconds, device)
            peak = _memory(device, "peak")
            latencies = times_of(partial(network, batch[:1]), seconds, device)
            cost = Cost(
                patch_size=str(patch),
                tokens=model.config.grid(patch, model.feature_config.frames).tokens,
                gflops=model.config.flops(patch, model.feature_config.frames) / 1e9,
                clips_per_second=batch_size / float(np.median(passes)),
                latency_p50_ms=1e3 * float(np.percentile(latencies, 50)),
                latency_p95_ms=1e3 * float(np.percentile(latencies, 95)),
                peak_memory_mb=None if peak is None or at_rest is None else max(0.0, peak - at_rest) / 1e6,
                roofline_clips_per_second=roofline(model, patch, batch_size, rate, bandwidth),
                score=_score(model, patch),
            )
            costs.append(cost)
    return Bench(
        costs=tuple(costs),
        growth=growth(costs),
        gflops_per_second=rate / 1e9,
        gigabytes_per_second=bandwidth / 1e9,
        front_end_ms=1e3 * float(np.median(front_end)),
        score_name=metric_of(model.loss),
    )


def compiled(model: AudioClassifier, patch: PatchSize) -> Callable[[Tensor], Tensor]:
    """The model frozen at a patch size and compiled: logits (B, C) of log-mel (B, T, F), a graph for each B."""
    torch.compiler.reset()  # graphs of the size before are not needed any more
    frozen = freeze(model, patch, model.feature_config.frames, share=True)
    return torch.compile(frozen, mode="reduce-overhead", dynamic=False)


def times_of(run: Callable[[], object], seconds: float, device: torch.device) -> np.ndarray:
    """Seconds of each call, repeated for this long but at least three times, after a warm-up call."""
    times: list[float] = []
    run()
    while len(times) < 3 or sum(times) < seconds:
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return np.array(times)


def _reset_peak_memory(device: torch.device) -> None:
    """On Linux, also give the system what is free: memory taken from a heap that was kept would not be seen."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (switch := Path("/proc/self/clear_refs")).exists():
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc: malloc_trim(3)
            trim(0)
        switch.write_text("5")  # resets VmHWM: proc(5)


def _memory(device: torch.device, when: Literal["now", "peak"]) -> float | None:
    """Bytes in use now, or at most since the last reset: allocated on a GPU, resident for a CPU where /proc tells."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device) if when == "now" else torch.cuda.max_memory_allocated(device))
    status, name = Path("/proc/self/status"), {"now": "VmRSS:", "peak": "VmHWM:"}[when]
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations per second of a large matrix product, at the precision of the autocast in force."""
    size = 8192 if device.type == "cuda" else 1536
    matrix = torch.randn(size, size, device=device).to(_precision(device))  # autocast would cast in every product
    return 2 * size**3 / float(times_of(lambda: matrix @ matrix, 0.3, device).min())


def _precision(device: torch.device) -> torch.dtype:
    """What matrix products are computed in."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else torch.float32


def copy_rate(device: torch.device) -> float:
    """Bytes per second of copying a tensor too large for the caches, read and written."""
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / float(times_of(lambda: target.copy_(source), 0.3, device).min())


def roofline(model: AudioClassifier, patch: PatchSize, batch_size: int, rate: float, bandwidth: float) -> float:
    """Clips per second if every matrix product ran at `rate`, or all memory traffic at `bandwidth`, whichever is less.

    Traffic: all weights once a batch; in every block each operand and result of qkv (1 + 3), attention (3 + 1),
    projection (1 + 1) and MLP (1 + r, r + 1) once, norms and residual sums (10), in units of tokens times width.
    """
    config, frames = model.config, model.feature_config.frames
    size = _precision(model.kernel.device).itemsize
    weights = sum(p.numel() for p in model.parameters()) * size
    tokens = config.grid(patch, frames).tokens + config.prefix_tokens
    traffic = config.depth * tokens * config.width * (4 + 4 + 2 + 2 * (1 + config.mlp_ratio) + 10) * size
    return 1.0 / max(config.flops(patch, frames) / rate, (weights / batch_size + traffic) / bandwidth)


def growth(costs: Sequence[Cost]) -> float | None:
    """Exponent of seconds per clip over tokens: the slope in logarithms, least squares."""
    tokens = np.array([cost.tokens for cost in costs], dtype=np.float64)
    if len(set(tokens)) < 2:
        return None
    seconds = 1.0 / np.array([cost.clips_per_second for cost in costs])
    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])


def _score(model: AudioClassifier, patch: PatchSize) -> float | None:
    """The validation score that training left in the checkpoint."""
    curve = model.metadata.get("validation")
    at_patch = curve.get(str(patch)) if isinstance(curve, dict) else None
    score = at_patch.get(metric_of(model.loss)) if isinstance(at_patch, dict) else None
    return float(score) if isinstance(score, (int, float)) else None
