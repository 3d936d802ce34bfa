"""A clip as a page holds it: playable sound and spectrogram, each as text that begins with data:."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import soundfile
import torch

from ..data.audio import decode
from ..data.shards import ShardMember
from ..features import FeatureConfig

MOST_SECONDS = 6.0
"""Seconds of a clip that are kept."""


def sound_and_spectrogram(path: Path | ShardMember, features: FeatureConfig) -> tuple[str, str]:
    """FLAC at the model's rate and a PNG of the log-mel, of the first seconds of a clip. Raises DataError."""
    most = int(MOST_SECONDS * features.sample_rate)
    waveform = decode(path, features.sample_rate, features.downmix, most, resampler=features.resampler)
    with torch.inference_mode():
        log_mel = features.log_mel()(waveform[None])[0]
    sound, image = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, waveform.clamp(-1, 1).numpy(), features.sample_rate, format="FLAC", subtype="PCM_16")
    from matplotlib.image import imsave

    imsave(image, log_mel.T.flip(0).numpy(), cmap="magma", format="png")
    return data_uri("audio/flac", sound.getvalue()), data_uri("image/png", image.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Content as a URL that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
