"""Training settings that released checkpoints do not store, looked up by number of classes and frames.

Sources: AST (github.com/YuanGongND/ast, egs/ and src/run.py), FlexiAST
(github.com/JiuFengSC/FlexiAST_INTERSPEECH23, egs/ and src/). Both take the first channel of a stereo file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...features import FeatureConfig


class Task(NamedTuple):
    """A data set as AST and FlexiAST recipes use it."""

    name: str
    classes: int
    frames: int
    mean: float
    std: float
    loss: str


AUDIOSET = Task("AudioSet", 527, FeatureConfig.frames, FeatureConfig.mean, FeatureConfig.std, "bce")
TASKS = (
    AUDIOSET,
    Task("VGGSound", 309, 1024, -5.0767093, 4.4533687, "bce"),
    Task("VoxCeleb", 1251, 1024, -3.7614744, 4.2011642, "ce"),
    Task("Speech Commands V2", 35, 128, -6.845978, 5.5654526, "bce"),
    Task("ESC-50", 50, 512, -6.6268077, 5.358466, "ce"),
)


def settings(classes: int, frames: int, bins: int) -> tuple[dict[str, Any], str]:
    """Metadata (features, loss) of a release with these sizes, and a note that says where they come from."""
    known = next((task for task in TASKS if (task.classes, task.frames) == (classes, frames)), None)
    task = known or AUDIOSET
    loss = known.loss if known else "ce"
    note = f"mean {task.mean}, std {task.std}, loss {loss}: " + (
        f"those of {task.name}, inferred from {classes} classes and {frames} frames"
        if known
        else f"AudioSet's normalisation assumed, no release has {classes} classes and {frames} frames"
    )
    features = {"bins": bins, "frames": frames, "mean": task.mean, "std": task.std, "downmix": "first"}
    return {"features": features, "loss": loss}, note
