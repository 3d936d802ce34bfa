"""Write a synthetic data set of spoken words in the folder layout of Google Speech Commands V2.

    python egs/demo/speak.py OUT_DIR [--train-speakers 300] [--val-speakers 20] [--test-speakers 60]

Every speaker is one voice of eSpeak NG (an English accent with a voice variant) that says every word once.
The same settings give the same bytes, whatever the number of processes.
"""

import argparse
import ctypes
import functools
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import firwin, resample_poly
from tqdm import tqdm

try:
    import espeakng_loader
except ImportError:  # told by main in one line
    espeakng_loader = None

WORDS = (
    "backward,bed,bird,cat,dog,down,eight,five,follow,forward,four,go,happy,house,learn,left,marvin,nine,no,"
    "off,on,one,right,seven,sheila,six,stop,three,tree,two,up,visual,wow,yes,zero"
)
SAMPLE_RATE = 16_000  # Hz, as in Speech Commands
CLIP_SAMPLES = 16_000  # one second
RECIPE = 1  # raise it with every change that alters the bytes, so that older data are not taken for new

# All English accents of eSpeak NG but en-shaw, which reads the Shavian alphabet only.
ACCENTS = "en en-029 en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-gb-x-rp en-us en-us-nyc"

# Measured for all 832 pairs of accent and variant, each with all 35 words at 90 words per minute: none is
# silent, quieter than RMS 0.01 or shorter than 0.27 s. Even so these variants are left out:
EXCLUDED_VARIANTS = {
    # Hard to understand: of the 35 mean mel spectrograms over the other variants, the nearest one is that of
    # another word in 41-72 % of the cases, against 8 % over all variants.
    *("Alicia", "RicishayMax2", "RicishayMax3", "zac"),
    # So slow that about half of the words last longer than one second, up to 2.2 s, and would lose both ends.
    *("AnxiousAndy", "Marco"),
    # No voice of its own: a test of eSpeak's highest speed, called unstable in its own file.
    "fast",
}

# From speak_lib.h of eSpeak NG 1.52.
AUDIO_OUTPUT_SYNCHRONOUS = 2  # espeak_Synth returns when the callback has had all samples; nothing is played
INITIALIZE_DONT_EXIT = 0x8000  # report an error instead of ending the process
CHARS_UTF8 = 1
PARAMETER_RATE = 1  # words per minute
PARAMETER_PITCH = 3  # 0-99, 50 is the voice's own
PARAMETER_RANGE = 4  # 0-99, 0 is monotone
SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class SpeakError(Exception):
    """A mistake of the user, told in one line."""


@dataclass(frozen=True)
class Speaker:
    """One voice: `rate` in words per minute, `pitch` and `pitch_range` on eSpeak's scale of 0-99."""

    name: str
    voice: str
    rate: float
    pitch: float
    pitch_range: float
    seed: tuple[int, int]


def list_voices() -> list[str]:
    """All pairs of an accent and a variant, as eSpeak names them ("en-us+f3"), in a fixed order."""
    folder = Path(espeakng_loader.get_data_path(), "voices", "!v")
    variants = sorted(set(os.listdir(folder)) - EXCLUDED_VARIANTS)
    return [f"{accent}+{variant}" for accent in ACCENTS.split() for variant in variants]


def draw_speakers(count: int, seed: int) -> list[Speaker]:
    """Draw `count` speakers, no two with the same voice."""
    voices = list_voices()
    if count > len(voices):
        raise SpeakError(f"{count} speakers asked for, but eSpeak NG has only {len(voices)} voices")
    np.random.default_rng(seed).shuffle(voices)
    return [draw_speaker(number, voices[number], seed) for number in range(count)]


def draw_speaker(number: int, voice: str, seed: int) -> Speaker:
    """Draw how one speaker talks."""
    rng = np.random.default_rng([seed, number])
    name = hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:8]
    rate, pitch, pitch_range = rng.uniform(90, 160), rng.uniform(25, 75), rng.uniform(20, 80)
    return Speaker(name, voice, rate, pitch, pitch_range, seed=(seed, number))


class Synthesizer:
    """eSpeak NG with one voice. What it says depends on all it said before: one process, one Synthesizer."""

    def __init__(self, voice: str, seed: int) -> None:
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        # eSpeak has 160 bytes for the path of its data, too few in a deep folder, so give it a short path.
        os.chdir(espeakng_loader.get_data_path())
        mode, options = AUDIO_OUTPUT_SYNCHRONOUS, INITIALIZE_DONT_EXIT
        self.sample_rate: int = self.library.espeak_Initialize(mode, 0, b".", options)
        if self.sample_rate <= 0 or self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"eSpeak NG cannot load the voice {voice}")
        # Breath noise comes from rand() of the C library, other variation from eSpeak's own generator.
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self.chunks: list[bytes] = []
        self.callback = SYNTH_CALLBACK(self.keep_chunk)  # kept, for the library has no more than its address
        self.library.espeak_SetSynthCallback(self.callback)

    def keep_chunk(self, samples: int | None, count: int, _events: int | None) -> int:
        """Callback of espeak_Synth: `samples` is the address of `count` 16-bit samples; 0 means go on."""
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, text: str, rate: float, pitch: float, pitch_range: float) -> np.ndarray:
        """Speak `text`; samples in [-1, 1) at `self.sample_rate`."""
        values = {PARAMETER_RATE: rate, PARAMETER_PITCH: pitch, PARAMETER_RANGE: pitch_range}
        for parameter, value in values.items():
            self.library.espeak_SetParameter(parameter, round(value), 0)
        self.chunks.clear()
        data = text.encode() + b"\0"
        self.library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, CHARS_UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.frombuffer(b"".join(self.chunks), np.int16) / 32768


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Bring `samples` from `rate` Hz to SAMPLE_RATE through a polyphase low-pass filter."""
    divisor = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // divisor, rate // divisor
    return resample_poly(samples, up, down, window=design_low_pass(max(up, down)))


@functools.cache  # designing it takes longer than using it
def design_low_pass(factor: int) -> np.ndarray:
    """Low-pass filter that keeps the lowest `factor`-th of the band; 20 zero crossings long."""
    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0))


def trim(samples: np.ndarray) -> np.ndarray:
    """Cut off both ends where the samples stay more than 40 dB below the peak."""
    level = np.abs(samples)
    loud = np.flatnonzero(level > 0.01 * level.max(initial=0))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def place(word: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put `word` into one second, centred within +-30 ms; of a longer word keep the middle second."""
    surplus = max(0, len(word) - CLIP_SAMPLES)
    word = word[surplus // 2 : surplus // 2 + CLIP_SAMPLES]
    room = CLIP_SAMPLES - len(word)
    start = int(np.clip(room / 2 + rng.uniform(-0.03, 0.03) * SAMPLE_RATE, 0, room))
    return np.pad(word, (start, room - start))


def draw_noise(rng: np.random.Generator) -> np.ndarray:
    """One second of noise of RMS 1, its power falling as frequency to a power between 0 (white) and 1.5."""
    spectrum = np.fft.rfft(rng.standard_normal(CLIP_SAMPLES))
    frequency = np.fft.rfftfreq(CLIP_SAMPLES, 1 / SAMPLE_RATE)
    # Flat below 50 Hz, or most of the noise would be too low to hear.
    noise = np.fft.irfft(spectrum * np.maximum(frequency, 50) ** (-rng.uniform(0, 1.5) / 2))
    return noise / np.sqrt(np.mean(noise**2))


def make_clip(synthesizer: Synthesizer, speaker: Speaker, word: str, rng: np.random.Generator) -> np.ndarray:
    """One noisy second of `speaker` saying `word`, as 16-bit integers."""
    rate = speaker.rate * rng.uniform(0.92, 1.08)
    pitch = speaker.pitch + rng.uniform(-4, 4)
    spoken = synthesizer.say(word.replace("_", " "), rate, pitch, speaker.pitch_range)
    voiced = trim(resample(spoken, synthesizer.sample_rate))
    if not len(voiced):
        raise RuntimeError(f"eSpeak NG says nothing for {word!r} with the voice {speaker.voice}")
    gain = 10 ** (rng.uniform(-20, -1) / 20) / np.abs(voiced).max()  # the peak lies 1-20 dB below full scale
    snr = rng.uniform(10, 40)  # dB, over the duration of the word
    noise_rms = gain * np.sqrt(np.mean(voiced**2)) / 10 ** (snr / 20)
    clip = gain * place(voiced, rng) + noise_rms * draw_noise(rng)
    return np.clip(np.round(clip * 32768), -32768, 32767).astype("<i2")


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write 16-bit mono `samples`; the file appears under its name only when it is complete."""
    part = path.with_suffix(".part")
    with wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    os.replace(part, path)


def clip_path(word: str, speaker: Speaker) -> str:
    """Path of a clip below the data folder, as the lists of Speech Commands give it."""
    return f"{word}/{speaker.name}_nohash_0.wav"


def write_speaker(out_dir: Path, speaker: Speaker, words: list[str]) -> None:
    """Write all clips of one speaker; for a process of its own (see Synthesizer)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent stops us and tells the user
    rng = np.random.default_rng([*speaker.seed, 1])
    synthesizer = Synthesizer(speaker.voice, int(rng.integers(2**31)))
    for word in words:
        write_wav(out_dir / clip_path(word, speaker), make_clip(synthesizer, speaker, word, rng))


def write_speakers(
    out_dir: Path,
    speakers: list[Speaker],
    words: list[str],
    processes: int,
) -> Iterator[Speaker]:
    """Write the speakers, each in a process of its own, `processes` at a time; yield each when it is done."""
    context = multiprocessing.get_context("fork")  # starting an interpreter would take longer than the speech
    running: dict[Any, tuple[Speaker, ForkProcess]] = {}
    waiting = iter(speakers)
    while True:
        for speaker in islice(waiting, processes - len(running)):
            process = context.Process(target=write_speaker, args=(out_dir, speaker, words), daemon=True)
            process.start()
            running[process.sentinel] = speaker, process
        if not running:
            return
        for sentinel in wait(running):
            speaker, process = running.pop(sentinel)
            process.join()
            if process.exitcode != 0:
                raise SpeakError(f"speaker {speaker.name} ({speaker.voice}) failed, see above")
            yield speaker


def write_list(path: Path, speakers: list[Speaker], words: list[str]) -> None:
    """List the clips of `speakers`, one a line, sorted."""
    clips = sorted(clip_path(word, speaker) for word in words for speaker in speakers)
    path.write_text("".join(f"{clip}\n" for clip in clips))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description="Write synthetic words in the layout of Speech Commands V2.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--train-speakers", type=int, default=300)
    parser.add_argument("--val-speakers", type=int, default=20)
    parser.add_argument("--test-speakers", type=int, default=60)
    parser.add_argument("--words", default=WORDS, help="comma-separated; default: the 35 of V2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    least = {"train_speakers": 1, "val_speakers": 0, "test_speakers": 0, "processes": 1, "seed": 0}
    for name, bound in least.items():
        if getattr(options, name) < bound:
            raise SpeakError(f"--{name.replace('_', '-')} must be at least {bound}")
    options.words = sorted(set(options.words.split(",")))
    for word in options.words:
        if not re.fullmatch("[a-z_]+", word):
            raise SpeakError(f"--words: {word!r} is not made of the letters a-z and _ only")
    return options


def collect_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides the bytes written."""
    names = ("train_speakers", "val_speakers", "test_speakers", "words", "seed")
    settings = {name: getattr(options, name) for name in names}
    return settings | {"recipe": RECIPE, "espeakng_loader": importlib.metadata.version("espeakng-loader")}


def check_folder(out_dir: Path, settings: dict[str, Any]) -> bool:
    """Whether `out_dir` already holds the complete data; refuse a folder that holds anything else."""
    for name in ("speak.json", "speak.json.unfinished"):
        record = out_dir / name
        if not record.exists():
            continue
        try:
            found = json.loads(record.read_text())
        except ValueError as error:
            raise SpeakError(f"{record} is damaged ({error}); delete {out_dir} and run again") from error
        for key, expected in settings.items():
            if found.get(key) != expected:
                raise SpeakError(f"{out_dir} holds data with {key} {found.get(key)}, expected {expected}")
        return name == "speak.json" and found["clips"] == sum(1 for _ in out_dir.glob("*/*.wav"))
    if out_dir.exists() and any(out_dir.iterdir()):
        raise SpeakError(f"{out_dir} is not empty and was not written by speak.py")
    return False


def write_data(out_dir: Path, settings: dict[str, Any], processes: int) -> int:
    """Write the data set and return its number of clips. The record of a finished run comes last."""
    words = settings["words"]
    sizes = [settings[f"{split}_speakers"] for split in ("train", "val", "test")]
    speakers = draw_speakers(sum(sizes), settings["seed"])
    # Written first under another name, so that a rerun with other settings is refused and mixes nothing.
    record = {**settings, "clips": len(speakers) * len(words)}
    unfinished = out_dir / "speak.json.unfinished"
    out_dir.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    for word in words:
        (out_dir / word).mkdir(exist_ok=True)
    done = write_speakers(out_dir, speakers, words, processes)
    for _ in tqdm(done, total=len(speakers), unit="speaker"):
        pass
    write_list(out_dir / "validation_list.txt", speakers[sizes[0] : sizes[0] + sizes[1]], words)
    write_list(out_dir / "testing_list.txt", speakers[sizes[0] + sizes[1] :], words)
    os.replace(unfinished, out_dir / "speak.json")
    return record["clips"]


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    try:
        options = parse_arguments(argv)
        if espeakng_loader is None:
            raise SpeakError("eSpeak NG is missing; install it with: pip install flexiast[demo]")
        settings = collect_settings(options)
        out_dir = options.out_dir.resolve()  # the speakers' processes change their working folder
        if check_folder(out_dir, settings):
            print(f"{out_dir} is complete, nothing to do")
            return 0
        clips = write_data(out_dir, settings, options.processes)
        print(f"wrote {clips} clips to {out_dir}")
        return 0
    except (SpeakError, OSError) as error:
        print(f"speak.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("speak.py: interrupted; run the same command again to finish", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
