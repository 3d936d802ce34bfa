"""Which device to use, how many cores there are, and whether bfloat16 is fast."""

from __future__ import annotations

import os

import torch

from ..errors import ConfigError
from .arguments import Precision


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` is the GPU if there is one (CUDA, or Apple's MPS).

    Raises ConfigError for a device that is not there.
    """
    if name == "auto":
        apple = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else apple)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ConfigError(f"device: found {name!r}, which is not usable here ({reason})") from None
    return device


def available_cores() -> int:
    """CPU cores that this process may use; containers and Slurm may grant fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast: on GPUs from Ampere on, CPUs with AMX, and AMD CPUs with AVX-512 BF16 (Zen 4 on).

    Elsewhere it is emulated, and slow. Intel's AVX-512 BF16 without AMX is not enough: on such a Xeon a training step
    took 1.8 times as long in bfloat16 as in float32, on an AMD EPYC less than half as long
    (`benchmarks/train_step.py`).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    cpu = torch.cpu.get_capabilities()
    amd = str(cpu.get("cpu_name", "")).startswith("AMD")
    return bool(cpu.get("amx_bf16") or (amd and cpu.get("avx512_bf16")))


def resolve_precision(device: torch.device, precision: Precision) -> Precision:
    """`fp32`, `bf16` or `fp16`: replaces `auto` by the best choice for this device."""
    if precision == "auto":
        return "bf16" if has_fast_bfloat16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a forward pass on this device."""
    resolved = resolve_precision(device, precision)
    half = torch.float16 if resolved == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=half, enabled=resolved != "fp32")


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished all its work, as needed before reading the clock; does nothing for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: Exception) -> bool:
    """Whether this error means that the GPU's or the CPU's memory has run out."""
    # The last is oneDNN's message under a memory limit.
    messages = ("can't allocate memory", "Cannot allocate memory", "could not create a primitive")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in messages)
