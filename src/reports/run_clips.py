"""Clips of a run's page: which are shown, what was said of them, and their sound and spectrogram."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..errors import DataError
from ..traintest import mistakes
from .findings import ClipAnswers
from .sound import sound_and_spectrogram

MOST_SOUND = 4_000_000
"""Bytes of all sounds and spectrograms together; clips beyond are named only."""
Cards = dict[str, list[dict[str, Any]]]
"""Clips under each title."""


def clips_shown(model: AudioClassifier, answers: ClipAnswers, most: int) -> Cards:
    """The hardest and the most confidently wrong clips, or those furthest off, with sound as far as there is room."""
    if model.loss == "mse":
        wanted = {"furthest off": mistakes.furthest_off(answers.scores, answers.targets, most)}
    else:
        wanted = {
            "hardest": mistakes.hardest(answers.scores, answers.targets, most),
            "confidently wrong": mistakes.confidently_wrong(answers.scores, answers.targets, most),
        }
    room = _Room(MOST_SOUND)
    return {title: list(_cards(model, answers, clips, room)) for title, clips in wanted.items()}


@dataclasses.dataclass
class _Room:
    """Bytes left for sounds and spectrograms."""

    left: int

    def for_clip(self, model: AudioClassifier, answers: ClipAnswers, clip: int) -> dict[str, str]:
        """The clip's sound and spectrogram; empty where it cannot be read, or does not fit."""
        try:
            sound, spectrogram = sound_and_spectrogram(answers.paths[clip], model.feature_config)
        except DataError:
            sound = spectrogram = ""
        if len(sound) + len(spectrogram) > self.left:
            sound = spectrogram = ""
        self.left -= len(sound) + len(spectrogram)
        return {"sound": sound, "spectrogram": spectrogram}


def _cards(model: AudioClassifier, answers: ClipAnswers, clips: Sequence[int], room: _Room) -> Iterator[dict[str, Any]]:
    names = model.labels.names
    for clip in clips:
        scores, targets = answers.scores[clip], answers.targets[clip]
        own = range(len(names)) if model.loss == "mse" else np.flatnonzero(targets > 0)
        top = np.argsort(-scores, kind="stable")[:3]
        yield {
            "path": str(answers.paths[clip]),
            "own": [(names[c], float(scores[c]), float(targets[c])) for c in own],
            "top": [(names[c], float(scores[c])) for c in top],
            **room.for_clip(model, answers, clip),
        }
