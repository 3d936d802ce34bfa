"""Check that all processes of a run were started alike: DDP would silently average what differs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch

from .. import __version__
from ..errors import ConfigError
from ..runtime.distributed import World
from .run_directory import differences

UNLIKE = {
    "data": "other files, sizes or classes",
    "contents": "other contents of the same files",
    "teacher": "other weights or scores",
    "models": "other weights",
}
"""What it means if a fingerprint differs, by what it is of."""


def require_agreement(
    world: World, settings: Mapping[str, Any], commit: str, fingerprints: Mapping[str, Any] | None = None
) -> None:
    """Raise ConfigError, in every process, if one has other settings, data, models or code than rank 0.

    settings: as JSON; those that may differ between the halves of a run may differ here too. fingerprints: any of those
    that UNLIKE lists.
    """
    code = {"commit": commit, "flexiast": __version__, "torch": torch.__version__, "python": platform.python_version()}
    ranks = world.gather({"settings": dict(settings), "code": code, "fingerprints": dict(fingerprints or {})})
    for rank, other in enumerate(ranks):
        changed = differences(ranks[0]["settings"], other["settings"]) + differences(ranks[0]["code"], other["code"])
        own, seen = ranks[0]["fingerprints"], other["fingerprints"]
        changed += [f"{name}: {unlike}" for name, unlike in UNLIKE.items() if own.get(name) != seen.get(name)]
        if changed:
            raise ConfigError(
                f"rank {rank}: was started unlike rank 0 ({'; '.join(changed)}); start all processes with the same"
                " command, code and data"
            )
