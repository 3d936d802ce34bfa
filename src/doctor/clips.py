"""What is wrong with the clips of a data set, from a look at each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from ..classifier.audio_classifier import AudioClassifier
from ..data.bad_clips import MAX_BAD, most_bad
from ..data.statistics import Moments
from ..features import FeatureConfig
from .finding import Finding, converting, counted, removing, some
from .listen import FLAT_SHARE, Seen

LONG, SHORT = 4.0, 0.1
"""Clips longer than so many windows, or shorter than so much of one, hardly fit the model."""
MEAN_OFF, STD_OFF = 0.5, 1.3
"""Standard deviations that the mean may be off, and the factor that the deviation may be off."""

Named = Sequence[tuple[str, tuple[str, ...]]]
"""Path and classes of each clip."""

SUSPICIONS: dict[str, tuple[str, str, str, Callable[[Sequence[str]], str]]] = {
    "silence": ("silent", "digital silence", "a label without its sound teaches nothing", removing),
    "opposite phase": (
        "opposite-phase", "channels that cancel each other in the mean", "what is left is noise",
        lambda _: "--features.downmix first",
    ),
    "DC offset": (
        "dc-offset", "an offset larger than the sound", "the recording's electronics can tell classes apart",
        lambda paths: converting(paths, "-af highpass=f=10"),
    ),
    "samples of up to": (
        "wrong-scale", "samples far beyond 1", "they were integers once, and are thousands of times too loud",
        lambda paths: converting(paths, "-af volume=1/32768 -c:a pcm_f32le"),
    ),
}  # fmt: skip
"""Words of a suspicion: its kind, what it is, why it matters, what mends such clips."""


def clip_faults(clips: Named, seen: Sequence[Seen], model: AudioClassifier | None) -> Iterator[Finding]:
    """Findings about the clips of a survey, in the order of the survey. model: one that is to be used on them."""
    yield from _unusable(clips, seen)
    for words, (kind, what, why, mend) in SUSPICIONS.items():
        odd = [path for (path, _), one in zip(clips, seen, strict=True) if any(words in s for s in one.suspicions)]
        if odd:
            yield Finding(kind, "warning", f"{counted(len(odd), 'clip')} with {what}", some(odd), why, mend(odd))
    clipped = [path for (path, _), one in zip(clips, seen, strict=True) if one.clipped > FLAT_SHARE]
    if clipped:
        yield Finding(
            "clipped", "warning", f"{counted(len(clipped), 'clip')} whose tops are cut off", some(clipped),
            "clipping adds harmonics that were not in the sound",
            converting(clipped, "-af adeclip") + "; or record them again at a lower level",
        )  # fmt: skip
    usable = [(clip, one) for clip, one in zip(clips, seen, strict=True) if one.error is None]
    if usable:
        yield from _rates([c for c, _ in usable], [s for _, s in usable], model)
        yield from _lengths([c for c, _ in usable], [s for _, s in usable], model)
        yield from _statistics([s for _, s in usable], model)


def _unusable(clips: Named, seen: Sequence[Seen]) -> Iterator[Finding]:
    errors = [(path, one.error) for (path, _), one in zip(clips, seen, strict=True) if one.error is not None]
    foreign = [error for _, error in errors if "without ffmpeg" in error]
    if foreign:
        yield Finding(
            "needs-ffmpeg", "serious", f"{counted(len(foreign), 'clip')} in formats that need ffmpeg", some(foreign, 1),
            "they would be left out", "pip install 'flexiast[audio]'",
        )  # fmt: skip
    broken = [(path, error) for path, error in errors if error not in foreign]
    if broken:
        allowed = most_bad(MAX_BAD, len(seen))
        yield Finding(
            "unreadable", "serious" if len(broken) > allowed else "warning",
            f"{len(broken)} of {len(seen)} clips cannot be used", some([error for _, error in broken]),
            f"training replaces up to {allowed} of them by others, and stops beyond",
            removing(list(dict.fromkeys(path for path, _ in broken))),
        )  # fmt: skip


def _rates(clips: Named, seen: Sequence[Seen], model: AudioClassifier | None) -> Iterator[Finding]:
    needed = (model.feature_config if model else FeatureConfig()).sample_rate
    low = [place for place, one in enumerate(seen) if one.sample_rate < needed]
    if not low:
        return
    rates = Counter(one.sample_rate for one in seen)
    described = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common())
    by_class: dict[str, list[bool]] = defaultdict(list)
    for (_, classes), one in zip(clips, seen, strict=True):
        for name in classes:
            by_class[name].append(one.sample_rate < needed)
    telling = [name for name, below in by_class.items() if all(below)]
    if len(low) == len(seen) or not telling or len(telling) == len(by_class):
        yield Finding(
            "low-sample-rate", "warning",
            f"{len(low)} of {len(seen)} clips are sampled below {needed} Hz ({described})",
            some([clips[place][0] for place in low]), "the upper mel bins are empty there",
            f"--features.sample-rate {min(rates)}; or record at {needed} Hz or more, so that no treble is missing",
        )  # fmt: skip
    else:
        yield Finding(
            "sample-rate-tells-the-class", "serious",
            f"all clips of {counted(len(telling), 'class', 'classes')}, and few others, are sampled below {needed} Hz"
            f" ({described})",
            some(sorted(telling)), "a model learns the missing treble in the place of the sound",
            f"--features.sample-rate {min(rates)}; so that the model hears no more of any clip",
        )  # fmt: skip


def _lengths(clips: Named, seen: Sequence[Seen], model: AudioClassifier | None) -> Iterator[Finding]:
    seconds = [one.seconds for one in seen]
    window = model.feature_config.seconds if model else median(seconds)
    whose = "the model's window" if model else "the median"
    long = [clips[place][0] for place, one in enumerate(seconds) if one > LONG * window]
    short = [clips[place][0] for place, one in enumerate(seconds) if one < SHORT * window]
    if long:
        yield Finding(
            "long-clips", "warning",
            f"{counted(len(long), 'clip is', 'clips are')} more than {LONG:g} times as long as {whose}, {window:.3g} s",
            some(long), "training hears one window of a clip, which may not hold what the label says",
            f"--features.frames {_frames(max(seconds) / LONG, model)}; or cut them where the sound is",
        )  # fmt: skip
    if short:
        yield Finding(
            "short-clips", "warning",
            f"{counted(len(short), 'clip is', 'clips are')} shorter than a tenth of {whose}, {window:.3g} s",
            some(short), "most of what the model sees of them is padding",
            f"--features.frames {_frames(median(seconds), model)}; or longer cuts" if model else removing(short),
        )  # fmt: skip


def _frames(seconds: float, model: AudioClassifier | None) -> int:
    """How many frames a window of at least so many seconds has."""
    features = model.feature_config if model else FeatureConfig()
    return math.ceil(seconds * features.sample_rate / features.hop)


def _statistics(seen: Sequence[Seen], model: AudioClassifier | None) -> Iterator[Finding]:
    if model is None:
        return
    total = sum((one.moments for one in seen), Moments())
    mean, std = total.mean, math.sqrt(total.squares / max(1, total.count))
    features = model.feature_config
    if abs(mean - features.mean) > MEAN_OFF * features.std or not 1 / STD_OFF < std / features.std < STD_OFF:
        yield Finding(
            "other-statistics", "warning",
            f"the log-mel has mean {mean:.2f} and deviation {std:.2f}, the model was given {features.mean:.2f} and"
            f" {features.std:.2f}", "all clips",
            "sounds that are louder or quieter than in training are recognised less",
            f"--data.mean {mean:.4f} --data.std {std:.4f}; in training or flexify",
        )  # fmt: skip
