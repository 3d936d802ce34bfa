"""Read tensors from a file without running any code in it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor, strided

from ..errors import CheckpointError
from .pickles import DAMAGE, Placeholder, load_pickle

__all__ = ["DAMAGE", "NESTED", "State", "load_pickle", "read_shards", "read_tensors", "reason", "some"]
State = dict[str, Tensor]
NESTED = ("model_state_dict", "state_dict", "model", "net", "network", "module", "weights", "ema", "model_ema")
"""Keys under which training programs keep the state dict among other things; the first one present is read."""


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, sorted, for an error message."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def read_tensors(path: Path) -> tuple[State, dict[str, str], list[str]]:
    """Tensors of a safetensors or PyTorch file, the metadata of a safetensors header, and the names of other entries.

    PyTorch files are read with `weights_only=True`; objects of unknown classes become placeholders. A state dict
    under one of the NESTED keys is used, and the names of the entries beside it are returned. Memory use is bounded
    by the size of the file, whatever the file claims. Raises CheckpointError that names the file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(512)
        if kind := _other_kind(path, start):
            raise CheckpointError(f"{path}: not readable as a checkpoint (found {kind}, {EXPECTED})")
        # Zip archive or older bare pickle. safetensors may start the same way, but its JSON header begins at byte 8.
        if start[:2] in (b"PK", b"\x80\x02") and start[8:9] != b"{":
            content = load_pickle(path, placeholders=True)
        else:
            with safetensors.safe_open(path, "pt") as opened:
                header = opened.metadata() or {}
            return load_file(path), header, []
    except DAMAGE as error:
        raise CheckpointError(f"{path}: not readable as a checkpoint ({reason(error)})") from None
    state, header, beside = _state_dict(content, path)
    _require_plain(state, path)
    return state, header, beside


EXPECTED = "expected weights in the format of PyTorch or safetensors"
EXPORTS = (".onnx", ".pt2")
_STARTS = {b"RIFF": "audio", b"fLaC": "audio", b"OggS": "audio", b"ID3": "audio", b"\x89PNG": "a picture"}


def _other_kind(path: Path, start: bytes) -> str | None:
    """What a file is that holds no checkpoint, in words; None for what may be one."""
    if path.suffix.lower() in EXPORTS:
        return "an export, which is not read back: give the checkpoint that it was made from"
    if not start:
        return "an empty file"
    if start[:2] in (b"PK", b"\x80\x02") or start[8:9] == b"{":
        return None
    kind = next((kind for mark, kind in _STARTS.items() if start.startswith(mark)), None)
    return kind or ("text" if _is_text(start) else None)


def _is_text(start: bytes) -> bool:
    """Whether a file that begins with these bytes is UTF-8 text."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def reason(error: Exception) -> str:
    """What is wrong with a file, in one line, without torch's advice to let its pickle run code."""
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    for refusal in (r"[Uu]nsupported .*", r"WeightsUnpickler error:\s*.*"):  # torch's reason, after its advice
        if found := re.search(refusal, text):
            return " ".join(found[0].split()).split(". ")[0]
    return text.splitlines()[0] if text else type(error).__name__


def read_shards(index: Path, weight_map: Any) -> State:
    """Read the shards that an index lists. weight_map: tensor name to the shard's file name, next to the index.

    Raises CheckpointError, naming the index or the shard, if the map is missing, a shard is missing or in another
    folder, or the shards do not hold exactly the tensors in the map.
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
    """Raise CheckpointError unless all tensors are dense real numbers that the file really stores.

    A view of stride 0 takes no space in the file, but as a parameter it could take any amount of memory.
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
    """The state dict in the unpickled content, and the names of the entries beside it."""

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
        if len(state) > 1:  # mixed with settings
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
