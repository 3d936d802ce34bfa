"""Tensors out of a file, without running anything that is in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor, strided

from ..errors import CheckpointError
from .pickles import DAMAGE, Placeholder, load_pickle

__all__ = ["DAMAGE", "NESTED", "State", "load_pickle", "read_shards", "read_tensors", "some"]
State = dict[str, Tensor]
NESTED = ("model_state_dict", "state_dict", "model", "net", "network", "module", "weights", "ema", "model_ema")
"""Names under which training programs keep the state dict beside other things; the first one there is read."""


def some(names: Iterable[str], most: int = 4) -> str:
    """A few of the names, for an error message."""
    names = sorted(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def read_tensors(path: Path) -> tuple[State, dict[str, str], list[str]]:
    """Tensors of a safetensors or PyTorch file, the safetensors header's texts, and other things that lay beside.

    PyTorch files are read with `weights_only=True`, other classes than tensors as placeholders. A state dict that lies
    under a name of NESTED is taken out; what lay beside it is named. Memory is bounded by the size of the file,
    whatever it says of itself. Raises CheckpointError that names the file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        # Zip archive or older bare pickle; safetensors may start alike, but its JSON header begins at byte 8.
        if start[:2] in (b"PK", b"\x80\x02") and start[8:] != b"{":
            content = load_pickle(path, placeholders=True)
        else:
            with safetensors.safe_open(path, "pt") as opened:
                header = opened.metadata() or {}
            return load_file(path), header, []
    except DAMAGE as error:
        raise CheckpointError(f"{path}: not readable as a checkpoint ({_reason(error)})") from None
    state, header, beside = _state_dict(content, path)
    _require_plain(state, path)
    return state, header, beside


def _reason(error: Exception) -> str:
    """What is wrong, in a line. Of what torch says of a pickle, not that it could be read with its code run."""
    text = str(error).strip()
    if refused := re.search(r"([Uu]nsupported .*|WeightsUnpickler error: .*)", text):
        return refused[1].split(". ")[0]
    return text.splitlines()[0] if text else type(error).__name__


def read_shards(index: Path, weight_map: Any) -> State:
    """The tensors that an index of shards names (tensor: file in the folder of the index), each from its own file.

    Raises CheckpointError that names the index or the shard: no map, a file elsewhere or not there, a tensor missing.
    """
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(f"{index}: found no weight_map, expected the file of every tensor")
    state: State = {}
    for name in sorted(set(weight_map.values())):
        if "/" in name or "\\" in name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: found shard {name[:120]!r}, expected a file that lies beside it")
        state |= read_tensors(index.parent / name)[0]
    if wrong := weight_map.keys() ^ state.keys():
        raise CheckpointError(f"{index}: names other tensors than its shards hold ({some(map(str, wrong))})")
    return state


def _require_plain(state: State, path: Path) -> None:
    """Raise CheckpointError unless the tensors are real numbers that lie in the file, each in a place of its own.

    A view of stride 0 takes no room in a file, and as a parameter would take any amount of memory.
    """
    for name, tensor in state.items():
        if tensor.layout != strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(
                f"{path}: tensor {name}: found {tensor.dtype} on {tensor.device} as {tensor.layout}, expected plain"
                " real numbers"
            )
    needed, there = sum(t.numel() * t.element_size() for t in state.values()), path.stat().st_size
    if needed > 2 * there:  # tensors may share their storage
        raise CheckpointError(f"{path}: its tensors would take {needed} bytes, expected at most twice its {there}")


def _state_dict(content: Any, path: Path) -> tuple[State, dict[str, str], list[str]]:
    """The state dict in what was pickled, and the names of what lay beside it."""

    def is_state(value: Any) -> bool:
        named = isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value)
        return named and all(isinstance(tensor, Tensor) for tensor in value.values())

    if is_state(content):
        return content, {}, []
    if isinstance(content, dict):
        for name in NESTED:
            if is_state(content.get(name)):
                return content[name], {}, [str(other) for other in content if other != name]
        state = {n: t for n, t in content.items() if isinstance(n, str) and isinstance(t, Tensor)}
        if len(state) > 1:  # settings among the tensors
            return state, {}, [str(name) for name in content if name not in state]
    raise CheckpointError(f"{path}: found {_described(content)}, expected a state dict (names to tensors), {REMEDY}")


REMEDY = (
    f"alone or under {', '.join(NESTED[:3])} or the like; where the program is at hand, torch.save(model.state_dict(),"
    " FILE) makes one"
)


def _described(content: Any) -> str:
    if isinstance(content, Placeholder):
        return "a whole object of a program that is not here"
    if not isinstance(content, dict):
        return type(content).__name__
    kinds = [f"{name} ({_kind(value)})" for name, value in content.items()]
    return f"the keys {some(kinds, 12)}" if kinds else "nothing"


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, Placeholder) else type(value).__name__
