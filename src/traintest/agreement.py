"""Check that all processes of a run were started alike: DDP would silently average what differs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import __version__
from ..errors import ConfigError
from ..runtime.distributed import World
from .run_directory import differences


def require_agreement(world: World, settings: Mapping[str, Any], commit: str, data: Sequence[str] = ()) -> None:
    """Raise ConfigError, in every process, if one has other settings, data or code than rank 0.

    settings: as JSON; those that may differ between the halves of a run may differ here too. data: fingerprints.
    """
    code = {"commit": commit, "flexiast": __version__, "torch": torch.__version__, "python": platform.python_version()}
    ranks = world.gather({"settings": dict(settings), "code": code, "data": list(data)})
    for rank, other in enumerate(ranks):
        changed = differences(ranks[0]["settings"], other["settings"]) + differences(ranks[0]["code"], other["code"])
        if other["data"] != ranks[0]["data"]:
            changed.append("data: other files, sizes or classes")
        if changed:
            raise ConfigError(
                f"rank {rank}: was started unlike rank 0 ({'; '.join(changed)}); start all processes with the same"
                " command, code and data"
            )
