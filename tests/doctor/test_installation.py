"""Faults of a machine, each found; a good one, in which nothing is."""

import dataclasses

import pytest

from flexiast.doctor.installation import PACKAGES, Machine, examine_installation, look

GOOD = Machine(
    versions=dict.fromkeys(PACKAGES, "2.11.0"),
    cuda_build=True,
    gpus=("NVIDIA H100",),
    driver=True,
    visible=None,
    fast_bfloat16=True,
    threads=4,
    cores=4,
    shared_memory=8 << 30,
    disk=100 << 30,
    ffmpeg="/usr/bin/ffmpeg",
)
FAULTS = {
    "package-missing": ({"versions": {**GOOD.versions, "timm": None}}, "pip install timm"),
    "versions-differ": ({"versions": {**GOOD.versions, "torchaudio": "2.10.1"}}, "'torchaudio==2.11.*'"),
    "gpu-unused": ({"gpus": (), "visible": ""}, "unset CUDA_VISIBLE_DEVICES"),
    "too-many-threads": ({"threads": 64}, "OMP_NUM_THREADS=4"),
    "little-shared-memory": ({"shared_memory": 64 << 20}, "--shm-size"),
    "little-disk": ({"disk": 1 << 30}, "--keep-checkpoints 1"),
}


def test_a_good_machine_has_no_faults_nor_has_one_without_gpu() -> None:
    assert examine_installation(GOOD).findings == ()
    plain = dataclasses.replace(GOOD, gpus=(), driver=False, cuda_build=False, fast_bfloat16=False, shared_memory=None)
    assert examine_installation(plain).findings == ()
    assert examine_installation(plain).facts["GPU"] == "none: the system has no NVIDIA driver"


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_found(kind: str) -> None:
    changes, mend = FAULTS[kind]
    (finding,) = examine_installation(dataclasses.replace(GOOD, **changes)).findings
    assert finding.kind == kind
    assert mend in finding.mend


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cuda_build": False}, "built for CPUs only"),
        ({"visible": "-1"}, "CUDA_VISIBLE_DEVICES is '-1'"),
        ({}, "driver may be too old"),
    ],
)
def test_why_there_is_no_gpu(changes: dict, reason: str) -> None:
    found = examine_installation(dataclasses.replace(GOOD, gpus=(), **changes))
    assert reason in found.facts["GPU"]
    assert reason in found.findings[0].what


def test_this_machine_is_looked_at() -> None:
    machine = look()
    assert machine.versions["torch"]
    assert machine.threads >= 1
    assert machine.cores >= 1
    assert machine.disk > 0
