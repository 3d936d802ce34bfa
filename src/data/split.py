"""Split validation clips off the training clips: with every class, and no speaker or recording on both sides."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, StratifiedKFold

from ..errors import ConfigError, require
from .clips import Clip
from .manifest import Manifest

REMEDY = "name validation clips with --data.val, or 0 for none"
"""What to do where a share cannot be split off."""
MOST_GROUPED = 50_000
"""Largest number of clips to keep groups together in; scikit-learn's time grows with groups times classes."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Training and validation clips of one manifest."""

    train: Manifest
    val: Manifest
    grouped_by: str
    """How clips were grouped, in words: by which part of their names, or each clip by itself."""


def split_off(manifest: Manifest, share: float, seed: int = 0) -> Split:
    """Hold out a share of the clips for validation, stratified by class, in whole groups if the names show groups.

    Of a stream whole pieces are held out, at random, so that a validation fetches few. The same names, share and seed
    give the same split. Raises ConfigError if a class is too small to be on both sides.
    """
    folds = max(2, round(1 / share))
    strata = _strata(manifest)
    if (rare := Counter(strata.tolist()).most_common()[-1])[1] < 2:
        name = manifest.labels.names[rare[0]] if rare[0] >= 0 else "(no class)"
        raise ConfigError(f"data.val: class {name!r} has 1 clip, expected at least 2 to split a share off; {REMEDY}")
    if (pieces := manifest.clips.paths.pieces) is not None:
        return _sides(manifest, _whole_pieces(manifest, strata, pieces, share, seed), "pieces of the stream")
    how, groups = source_groups(manifest.clips) if len(strata) <= MOST_GROUPED else ("", None)
    if groups is None:
        how, splitter = "each clip by itself", StratifiedKFold(folds, shuffle=True, random_state=seed)
        folds = splitter.n_splits = min(folds, rare[1])
        parts = splitter.split(strata, strata)
    else:
        parts = StratifiedGroupKFold(min(folds, len(set(groups))), shuffle=True, random_state=seed).split(
            strata, strata, groups
        )
    return _sides(manifest, next(iter(parts))[1], how)


def _whole_pieces(manifest: Manifest, strata: np.ndarray, pieces: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Indices of the clips in about that share of the pieces. Raises ConfigError if all of a class is in them."""
    require(len(np.unique(pieces)) > 1, "data.val", "1 piece to hold out of", f"2 at least; {REMEDY}")
    parts = GroupShuffleSplit(1, test_size=share, random_state=seed).split(strata, groups=pieces)
    kept, held_out = next(iter(parts))
    if len(lost := np.setdiff1d(strata, strata[kept])):
        name = manifest.labels.names[lost[0]] if lost[0] >= 0 else "(no class)"
        raise ConfigError(f"data.val: class {name!r} is only in pieces that would be held out; {REMEDY}")
    return held_out


def _sides(manifest: Manifest, held_out: np.ndarray, how: str) -> Split:
    """The split that holds out these clips."""
    in_val = np.zeros(len(manifest), dtype=bool)
    in_val[held_out] = True
    train, val = (dataclasses.replace(manifest, clips=manifest.clips.take(side)) for side in (~in_val, in_val))
    return Split(train, val, how)


def _strata(manifest: Manifest) -> np.ndarray:
    """(n,) the class each clip is balanced by: its rarest one, -1 for a clip without any."""
    classes = manifest.clips.classes
    by_rarity = np.argsort(np.bincount(classes.flat, minlength=len(manifest.labels)), kind="stable")
    strata, some = np.full(len(classes), -1), classes.sizes > 0
    if some.any():
        ranks = np.argsort(by_rarity)[classes.flat]
        strata[some] = by_rarity[np.minimum.reduceat(ranks, classes.offsets[:-1][some])]
    return strata


RULES: dict[str, Callable[[Clip], str]] = {
    "folder": lambda clip: clip.path.parts[-2] if len(clip.path.parts) > 1 else "",
    "first part of the name": lambda clip: _parts(clip)[0] if len(_parts(clip)) > 1 else "",
    "name less its last part": lambda clip: "_".join(_parts(clip)[:-1]),
}
"""Parts of a path that may identify the speaker or the recording, tried in this order."""


def source_groups(clips: Sequence[Clip]) -> tuple[str, list[str] | None]:
    """The part of the names that identifies the source of a clip, and each clip's group; None if no part does.

    A part tells if it repeats, if no group holds more than a quarter of the clips, and if every class that has ten
    clips or more comes from at least four groups, and most classes from more than one: numbers, class names and hashes
    fail one of these.
    """
    for name, rule in RULES.items():
        groups = [rule(clip) for clip in clips]
        if _are_sources(groups, clips):
            return name, groups
    return "each clip by itself", None


def _parts(clip: Clip) -> list[str]:
    stem = clip.path.parts[-1].rsplit(".", 1)[0]
    return [part for part in re.split(r"[-_ .]+", stem) if part] or [stem]


def _are_sources(groups: Sequence[str], clips: Sequence[Clip]) -> bool:
    sizes = Counter(groups)
    if "" in sizes or len(sizes) > len(groups) / 2 or max(sizes.values()) > len(groups) / 4:
        return False
    of_class: dict[int, list[str]] = defaultdict(list)
    for group, clip in zip(groups, clips, strict=True):
        for c in clip.classes:
            of_class[c].append(group)
    several = [groups_of for groups_of in of_class.values() if len(groups_of) >= 2]
    of_one_group = sum(len(set(groups_of)) == 1 for groups_of in several)
    if of_one_group > len(several) / 2:  # it is the class that the names tell
        return False
    return all(len(set(groups_of)) >= 4 for groups_of in several if len(groups_of) >= 10)
