"""The suffixes of audio files, in lower case."""

from __future__ import annotations

SNDFILE_SUFFIXES = frozenset(
    {".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aiff", ".aif", ".aifc", ".au", ".snd", ".caf"}
)
"""Files that libsndfile can read."""
FFMPEG_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".webm", ".weba", ".mka", ".mkv", ".wma", ".amr", ".voc"}
    | {".ac3", ".wv"}
)
"""Files that need ffmpeg."""
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | FFMPEG_SUFFIXES
"""All of them."""
SUFFIX_ORDER = (".wav", ".flac", ".ogg", ".mp3", *sorted(AUDIO_SUFFIXES - {".wav", ".flac", ".ogg", ".mp3"}))
"""All of them, the usual ones first."""
