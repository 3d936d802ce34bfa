"""The folder that `flexiast measure --out` wrote, read for the page of one of the models in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import weights_digest
from ..classifier.audio_classifier import AudioClassifier
from ..data.scores import base_of, clips_named, read_answers, scores_file
from ..errors import ConfigError, DataError
from ..models.geometry import PatchSize
from .findings import ClipAnswers, Findings
from .flexibility import COLUMNS, FIRST_METRIC, patch_of
from .run_tables import Rows
from .tables import read_table

COST = COLUMNS[:FIRST_METRIC]
OF_CLASSES = (*COLUMNS, "ece", "accuracy_low", "accuracy_high", "mAP_low", "mAP_high")
OF_NUMBERS = (*COST, "R2", "RMSE", "pearson", "loss", "n_clips", "R2_low", "R2_high")
PLACE = ("model", "resize", "patch_freq", "patch_time")
CLASSES = (*PLACE, "class", "support", "AP", "AUC", "precision", "recall")
CONFUSIONS = (*PLACE, "class", "taken_for", "clips", "share")
COMPARISONS = (
    *("patch_freq", "patch_time", "first", "second", "score_name", "first_score", "second_score"),
    *("difference", "low", "high"),
)
"""Columns that the page shows."""


def read_measured(folder: Path, weights: Path, model: AudioClassifier, patch: PatchSize | None) -> Findings:
    """What a measurement says of the model whose weights are in the folder or file `weights`.

    Of several ways to resize it `pi` counts, where it was measured. patch: the size that classes and clips are shown
    at (default: the model's base patch, or the first measured). Raises DataError for files that are missing, damaged
    or of other models, ConfigError for a patch that was not measured.
    """
    described = _description(folder)
    name = _own_name(folder, described["models"], weights)
    rows = [row for row in _curve(folder, model) if row["model"] == name]
    if not rows:
        raise DataError(f"{folder / 'flexibility.csv'}: found no row of model {name}, expected one per patch size")
    resizes = [row["resize"] for row in rows]
    resize = "pi" if "pi" in resizes else resizes[0]
    curve = [row for row in rows if row["resize"] == resize]
    patch = _shown_patch(folder, [patch_of(row) for row in curve], patch, model.config.patch_size)
    file = scores_file(folder, name, resize, patch)

    def of_model(table: str, columns: Sequence[str]) -> Rows:
        read = read_table(folder / table, columns)
        return [row for row in read if (row["model"], row["resize"]) == (name, resize)]

    return Findings(
        patch=patch,
        source=described["path"],
        fingerprint=described["fingerprint"],
        clips=curve[0]["n_clips"],
        excluded=list(described["excluded"].values()),
        curve=curve,
        classes=[] if model.loss == "mse" else of_model("classes.csv", CLASSES),
        confusions=of_model("confusions.csv", CONFUSIONS) if (folder / "confusions.csv").exists() else [],
        comparisons=_comparisons(folder, f"{name} ({resize})"),
        answers=_answers(file, described["base"], model, curve[0]["n_clips"]),
        measured=folder,
    )


def _description(folder: Path) -> dict[str, Any]:
    """From flexibility.json: the models' weights, where the clips are, and where their names begin."""
    file = folder / "flexibility.json"
    try:
        source = json.loads(file.read_text(encoding="utf-8"))["provenance"]
        data, command = source["data"], source["command"]
        path = Path(data["path"])
        base = base_of(path, Path(command["root"]) if command["root"] else None)
        digests = {str(name): str(model["sha256"]) for name, model in source["models"].items()}
        excluded = {str(clip): str(reason) for clip, reason in data["excluded"].items()}
        of_data = {"path": str(path), "fingerprint": str(data["fingerprint"]), "excluded": excluded, "base": base}
        return of_data | {"models": digests}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; expected the folder of flexiast measure --out") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: not readable as the description of a measurement ({error!r})") from None


def _own_name(folder: Path, digests: Mapping[str, str], weights: Path) -> str:
    """What the measurement calls the model."""
    own = weights_digest(weights)
    for name, digest in digests.items():
        if digest == own:
            return name
    raise DataError(
        f"{folder}: found measurements of {', '.join(digests) or 'no model'}, of which none has the weights of"
        f" {weights}, expected one of this model as it is now; measure it again"
    )


def _curve(folder: Path, model: AudioClassifier) -> Rows:
    several = model.labels.names if model.loss == "mse" and len(model.labels) > 1 else ()
    of_targets = [f"{kind} {name}" for kind in ("R2", "RMSE", "pearson") for name in several]
    columns = (*OF_NUMBERS, *of_targets) if model.loss == "mse" else OF_CLASSES
    return read_table(folder / "flexibility.csv", columns)


def _shown_patch(folder: Path, sizes: Sequence[PatchSize], wanted: PatchSize | None, base: PatchSize) -> PatchSize:
    if wanted is None:
        return base if base in sizes else sizes[0]
    if wanted not in sizes:
        raise ConfigError(
            f"patch_size: found {wanted}, which {folder} did not measure, expected one of {', '.join(map(str, sizes))}"
        )
    return wanted


def _comparisons(folder: Path, line: str) -> Rows:
    """Those of this model with others, and with other ways to resize it."""
    file = folder / "comparisons.csv"
    rows = read_table(file, COMPARISONS) if file.exists() else []
    return [row for row in rows if line in (row["first"], row["second"])]


def _answers(file: Path, base: Path, model: AudioClassifier, clips: int) -> ClipAnswers | None:
    """What `measure --scores` kept of the clips, if it did, in the order of the model's labels."""
    if not file.exists():
        return None
    kept = read_answers(file)
    if sorted(kept.labels) != sorted(model.labels.names) or len(kept.clips) != clips:
        raise DataError(
            f"{file}: found {len(kept.clips)} clips and {len(kept.labels)} labels, expected the {clips} clips of"
            f" flexibility.csv and the {len(model.labels)} labels of the model"
        )
    order = [kept.labels.index(name) for name in model.labels.names]
    return ClipAnswers(clips_named(kept.clips, base), kept.values[:, order], kept.targets[:, order])
