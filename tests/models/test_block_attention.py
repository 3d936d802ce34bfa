"""Attention in blocks: equal to PyTorch's fused attention, in value and gradient, and taken where it is the faster."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flexiast.models import block_attention
from flexiast.models.block_attention import attend_in_blocks
from tests.models.test_flexiast import small


def inputs(dtype: torch.dtype, tokens: int = 37) -> tuple[Tensor, Tensor]:
    """Query, key and value (3, 2, 3, N, 8), and the gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(4, 2, 3, tokens, 8, generator=generator, dtype=torch.float64).to(dtype)
    return both[:3].clone().requires_grad_(), both[3]


@pytest.mark.parametrize("block", [1, 100, 2 * 37 * 37, 1 << 20], ids=["a row", "parts of a head", "two heads", "all"])
def test_values_and_gradients_are_those_of_fused_attention(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "BLOCK", block)
    ours, grad = inputs(torch.float64)
    theirs, _ = inputs(torch.float64)
    got, expected = attend_in_blocks(*ours), F.scaled_dot_product_attention(*theirs)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    got.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("block", [300, 1 << 20])
def test_bfloat16_is_as_exact_as_its_eight_bits_allow(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "BLOCK", block)
    ours, grad = inputs(torch.bfloat16, tokens=150)
    exact = ours.detach().double().requires_grad_()
    got, expected = attend_in_blocks(*ours), F.scaled_dot_product_attention(*exact)
    got.backward(grad)
    expected.backward(grad.double())
    for found, wanted in ((got, expected), (ours.grad, exact.grad)):
        assert found.dtype == torch.bfloat16
        assert (found - wanted).norm() < 2**-7 * wanted.norm()


@pytest.mark.parametrize(("heads", "tokens"), [(1, 1), (24, 65), (5, 1025), (36, 514), (3, 5000)])
def test_blocks_cover_every_score_once_and_are_as_large_as_allowed(heads: int, tokens: int) -> None:
    covered = torch.zeros(heads, tokens, dtype=torch.int)
    for head, rows in block_attention._blocks(heads, tokens):
        covered[head, rows] += 1
        assert covered[head, rows].numel() * tokens <= block_attention.BLOCK
    assert (covered == 1).all()


def calls_of_blocks(monkeypatch: pytest.MonkeyPatch, amx: bool = False) -> list[int]:
    """Filled with an entry for each call, on a CPU with or without AMX."""
    calls: list[int] = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    inner = block_attention.attend_in_blocks
    monkeypatch.setattr(block_attention, "attend_in_blocks", lambda *qkv: (calls.append(1), inner(*qkv))[1])
    return calls


@pytest.mark.parametrize("patch", [8, 16])
def test_a_network_in_bfloat16_takes_blocks_and_stays_near_float32(patch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = small(), calls_of_blocks(monkeypatch)
    log_mel = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))
    expected = model(log_mel, patch)
    assert not calls
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(log_mel, patch)
    assert len(calls) == model.config.depth - 1  # in the last block the prefix alone asks
    assert (got - expected).abs().max() < 0.03 * expected.abs().max()


def test_with_amx_the_fused_attention_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of_blocks(monkeypatch, amx=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small()(torch.zeros(1, 64, 32), 16)
    assert not calls


def test_gradients_of_a_network_in_bfloat16_are_those_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of_blocks(monkeypatch)
    log_mel, gradients = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1)), []
    for bf16 in (False, True):
        model = small()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(log_mel, 16).float().square().sum()
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert calls
    expected, got = gradients
    assert expected.keys() == got.keys()
    assert "blocks.0.attn.qkv.weight" in got
    for name, wanted in expected.items():
        assert (got[name] - wanted).norm() < 0.05 * wanted.norm() + 1e-6, name


def test_in_float32_compiled_or_masked_no_blocks_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = small(), calls_of_blocks(monkeypatch)
    attention: Any = model.blocks[0].attn
    tokens = torch.randn(2, 9, model.config.width)
    attention(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.compile(attention, backend="eager")(tokens)
        causal = attention(tokens, is_causal=True)
        assert not calls
        whole = attention(tokens)
    assert calls
    assert not torch.allclose(causal[:, 0], whole[:, 0], atol=0.05)
    assert torch.allclose(causal[:, -1], whole[:, -1], atol=0.05)
