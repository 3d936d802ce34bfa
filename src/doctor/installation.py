"""The installation and the machine: versions, GPU, bfloat16, threads, free space."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..data.ffmpeg import find_ffmpeg
from ..runtime.device import available_cores, has_fast_bfloat16
from .finding import Examination, Finding

LEAST_SHARED_MEMORY = 1 << 30
"""Bytes of /dev/shm below which batches of decoding processes may not fit."""
LEAST_DISK = 2 << 30
"""Bytes of disk below which a few checkpoints of a ViT-B do not fit."""
PACKAGES = ("torch", "torchaudio", "torchvision", "timm", "numpy", "soundfile", "tyro")


@dataclasses.dataclass(frozen=True)
class Machine:
    """All that is looked at."""

    versions: dict[str, str | None]
    """By package; None for one that is not installed."""
    cuda_build: bool
    """Whether this torch was built for CUDA."""
    gpus: tuple[str, ...]
    """Names of the GPUs that torch can use."""
    driver: bool
    """Whether the system has an NVIDIA driver."""
    visible: str | None
    """CUDA_VISIBLE_DEVICES."""
    fast_bfloat16: bool
    threads: int
    cores: int
    """Cores that this process may use."""
    shared_memory: int | None
    """Free bytes of /dev/shm; None where there is none."""
    disk: int
    """Free bytes where one stands."""
    ffmpeg: str | None


def look() -> Machine:
    """This machine."""
    shm = Path("/dev/shm")
    cuda = torch.cuda.is_available()
    return Machine(
        versions={name: _version(name) for name in PACKAGES},
        cuda_build=torch.version.cuda is not None,
        gpus=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else (),
        driver=Path("/proc/driver/nvidia/version").exists(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        fast_bfloat16=has_fast_bfloat16(torch.device("cuda" if cuda else "cpu")),
        threads=torch.get_num_threads(),
        cores=available_cores(),
        shared_memory=shutil.disk_usage(shm).free if shm.exists() else None,
        disk=shutil.disk_usage(".").free,
        ffmpeg=find_ffmpeg(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def examine_installation(machine: Machine) -> Examination:
    """The facts about a machine, and what is wrong with them."""
    gigabytes = 1e9
    facts = {
        "Python": platform.python_version(),
        **{name: installed or "not installed" for name, installed in machine.versions.items()},
        "GPU": ", ".join(machine.gpus) or f"none: {_why_no_gpu(machine)}",
        "bfloat16": "fast here" if machine.fast_bfloat16 else "slow here; float32 is used",
        "threads": f"{machine.threads} of torch's, {machine.cores} cores",
        "/dev/shm": "none" if machine.shared_memory is None else f"{machine.shared_memory / gigabytes:.1f} GB free",
        "disk": f"{machine.disk / gigabytes:.1f} GB free here",
        "ffmpeg": machine.ffmpeg or "none: M4A, WebM, WMA and the like cannot be read (pip install 'flexiast[audio]')",
    }
    findings = [*_versions(machine), *_gpu(machine), *_threads(machine), *_room(machine)]
    return Examination("installation", facts, tuple(findings))


def _why_no_gpu(machine: Machine) -> str:
    if not machine.driver:
        return "the system has no NVIDIA driver"
    if not machine.cuda_build:
        return "this torch was built for CPUs only"
    if machine.visible is not None and machine.visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is {machine.visible!r}"
    return "the driver may be too old for this torch"


def _versions(machine: Machine) -> list[Finding]:
    findings = [
        Finding(
            "package-missing", "serious", f"{name} is not installed", "this Python", "flexiast needs it",
            f"pip install {name}",
        )
        for name, installed in machine.versions.items() if installed is None
    ]  # fmt: skip
    torch_version, audio_version = (_minor(machine.versions.get(name)) for name in ("torch", "torchaudio"))
    if torch_version and audio_version and torch_version != audio_version:
        findings.append(
            Finding(
                "versions-differ", "serious", f"torch {torch_version} beside torchaudio {audio_version}", "this Python",
                "torchaudio is built for one torch and may crash with another",
                f"pip install 'torchaudio=={torch_version}.*'",
            )
        )  # fmt: skip
    return findings


def _minor(installed: str | None) -> str:
    return ".".join((installed or "").split(".")[:2])


def _gpu(machine: Machine) -> list[Finding]:
    if machine.gpus or not machine.driver:
        return []
    if not machine.cuda_build:
        mend = "pip install --force-reinstall torch torchaudio torchvision; from the index with CUDA builds"
    elif machine.visible is not None and machine.visible.strip() in ("", "-1"):
        mend = "unset CUDA_VISIBLE_DEVICES"
    else:
        mend = "nvidia-smi; shows the driver's version: update the driver, or install a torch for an older CUDA"
    return [
        Finding(
            "gpu-unused", "warning", f"there is an NVIDIA driver, but no GPU to use: {_why_no_gpu(machine)}",
            "this machine", "training a ViT-B on a CPU takes many times as long", mend,
        )
    ]  # fmt: skip


def _threads(machine: Machine) -> list[Finding]:
    if machine.threads <= machine.cores:
        return []
    return [
        Finding(
            "too-many-threads", "warning", f"torch uses {machine.threads} threads on {machine.cores} cores",
            "this process", "threads that wait for one another make small operations many times slower",
            f"export OMP_NUM_THREADS={machine.cores}",
        )
    ]  # fmt: skip


def _room(machine: Machine) -> list[Finding]:
    findings = []
    if machine.shared_memory is not None and machine.shared_memory < LEAST_SHARED_MEMORY:
        findings.append(
            Finding(
                "little-shared-memory", "warning",
                f"/dev/shm has {machine.shared_memory / 1e6:.0f} MB free", "/dev/shm",
                "decoding processes hand over their batches through it, and die when it is full",
                "--data.workers 0; or docker run --shm-size 8g",
            )
        )  # fmt: skip
    if machine.disk < LEAST_DISK:
        findings.append(
            Finding(
                "little-disk", "warning", f"{machine.disk / 1e9:.2f} GB of disk are free", str(Path.cwd()),
                "three training states of a ViT-B take 3 GB; a run stops when it cannot save",
                "--keep-checkpoints 1; or --out on another disk",
            )
        )  # fmt: skip
    return findings
