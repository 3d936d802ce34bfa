"""Which files are audio, told by the ends of their names."""

from __future__ import annotations

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf"}
    | {".w64", ".rf64", ".voc", ".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".webm", ".weba", ".mka", ".mkv"}
    | {".wma", ".amr", ".ac3", ".wv"}
)
"""Ends of the names of audio files, in lower case."""
SUFFIX_ORDER = (".wav", ".flac", ".ogg", ".mp3", *sorted(AUDIO_SUFFIXES - {".wav", ".flac", ".ogg", ".mp3"}))
"""The same, the usual ones first."""
