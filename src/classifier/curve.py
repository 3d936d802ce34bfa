"""A model's curve: accuracy, calibration and cost at a ladder of patch sizes, and the cascades on its Pareto front.

`flexiast curve` measures it; it is kept in the checkpoint's description, under `curve`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import CheckpointError, ConfigError, FlexiASTError
from ..models.geometry import PatchSize
from .cascade import Rule


@dataclasses.dataclass(frozen=True)
class Point:
    """One patch size on the validation data."""

    patch_size: PatchSize
    tokens: int
    """Patch tokens of one window."""
    gflops: float
    """10^9 floating-point operations of one window's forward pass."""
    score: float
    """Accuracy, mAP or R2, see `Curve.score_name`."""
    temperature: float
    """What logits are divided by to be calibrated: least negative log-likelihood."""
    ece_before: float
    """Expected calibration error at temperature 1."""
    ece_after: float
    """The same at `temperature`."""


@dataclasses.dataclass(frozen=True)
class Cascade:
    """A rule with what it costs and gives on the validation data."""

    rule: Rule
    reach: tuple[float, ...]
    """Share of the clips that each size scores; 1 for the first."""
    gflops: float
    """Mean over the clips."""
    score: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """What each patch size gives and costs, and the cascades of them."""

    score_name: str
    """`accuracy` (single-label models), `mAP`, or `R2` of numbers to predict, which have neither cascades nor
    calibration."""
    clips: int
    points: tuple[Point, ...]
    cascades: tuple[Cascade, ...]
    """The Pareto front of mean GFLOPs and score, cheapest first; single sizes and plain averages are among them."""
    seconds: dict[str, dict[str, float]]
    """Per machine (see `latency.machine`) and patch size: seconds that 95 % of single clips keep within; and those of
    the front end."""

    def __repr__(self) -> str:
        return (
            f"Curve({self.score_name} at {len(self.points)} patch sizes on {self.clips:,} clips,"
            f" {len(self.cascades)} cascades)"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "score_name": self.score_name,
            "clips": self.clips,
            "points": [dataclasses.asdict(p) | {"patch_size": str(p.patch_size)} for p in self.points],
            "cascades": [
                {"rule": c.rule.to_json(), "reach": list(c.reach), "gflops": c.gflops, "score": c.score}
                for c in self.cascades
            ],
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, value: Any) -> Curve:
        """The curve that `to_json` wrote. Raises CheckpointError if it is none."""
        try:
            points = tuple(Point(**p | {"patch_size": PatchSize.parse(p["patch_size"])}) for p in value["points"])
            cascades = tuple(
                Cascade(Rule.from_json(c["rule"]), tuple(c["reach"]), float(c["gflops"]), float(c["score"]))
                for c in value["cascades"]
            )
            if not points:
                raise ConfigError("points: found none, expected at least one")
            seconds = {m: {s: float(t) for s, t in by_size.items()} for m, by_size in value["seconds"].items()}
            return cls(str(value["score_name"]), int(value["clips"]), points, cascades, seconds)
        except (AttributeError, KeyError, TypeError, ValueError, FlexiASTError) as error:
            raise CheckpointError(
                f"config.json: curve: not valid ({error}), expected what `flexiast curve` writes; measure it again"
            ) from None

    def point(self, patch: PatchSize) -> Point | None:
        """What was measured at this size, if anything."""
        return next((point for point in self.points if point.patch_size == patch), None)


def curve_of(metadata: dict[str, Any]) -> Curve | None:
    """The curve in a model's metadata, if one was measured. Raises CheckpointError if it is not valid."""
    return Curve.from_json(metadata["curve"]) if metadata.get("curve") is not None else None
