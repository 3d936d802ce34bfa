"""The device by name, and where bfloat16 is taken unasked."""

import pytest
import torch

from flexiast.errors import ConfigError
from flexiast.runtime.device import autocast, has_fast_bfloat16, pick_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({}, False),
    ],
    ids=["AMX", "AMD's AVX-512 BF16", "Intel's alone, which is slower than float32", "an older AMD", "none"],
)
def test_bfloat16_is_taken_where_it_is_fast_or_asked_for(capabilities, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_fast_bfloat16(CPU) is fast
    with autocast(CPU, "auto"):
        assert torch.is_autocast_enabled("cpu") is fast
    with autocast(CPU, "bf16"):
        assert torch.is_autocast_enabled("cpu")
    with autocast(CPU, "fp16"):
        assert torch.get_autocast_dtype("cpu") == torch.float16
    with autocast(CPU, "fp32"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("cuda", "mps", "picked"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_gpu_there_is(cuda: bool, mps: bool, picked: str, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == picked


def test_a_device_that_is_not_there_is_refused_by_name():
    assert pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match="'abacus'"):
        pick_device("abacus")
