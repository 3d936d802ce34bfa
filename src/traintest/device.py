"""Which device to use, and whether bfloat16 is fast on it."""

from __future__ import annotations

import torch

from ..errors import ConfigError
from .config import Precision


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` is the GPU where there is one. Raises ConfigError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: found {name!r}, which is not usable here ({str(error).splitlines()[0]})") from None
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """GPUs from Ampere on, and CPUs with AMX or AVX-512 BF16; elsewhere bfloat16 is emulated, and slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a forward pass on this device."""
    enabled = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
