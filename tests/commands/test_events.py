"""`flexiast events` on scenes made here: known sounds mixed into noise at known times."""

import io
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast.classifier import events
from flexiast.classifier.curve import Curve, Point
from flexiast.classifier.events import Event, Progress, Scan, scan
from flexiast.cli import main
from flexiast.commands.events import EventsConfig, pcm_pieces
from flexiast.commands.events import _scan as command_scan
from flexiast.errors import ConfigError
from flexiast.models.geometry import PatchSize
from flexiast.reports.events import events_file
from tests.sounds import CLASSES, SAMPLE_RATE, sweep, write_folder

COARSE, FINE = PatchSize(32, 32), PatchSize(16, 16)


def background(seconds: float, rng: np.random.Generator) -> np.ndarray:
    return 0.01 * rng.standard_normal(round(seconds * SAMPLE_RATE))


def scene(seconds: float, seed: int | Sequence[int]) -> tuple[np.ndarray, list[Event]]:
    """A noisy scene, and the sounds in it, one every 3 to 5 seconds."""
    rng = np.random.default_rng(seed)
    samples, truth, at = background(seconds, rng), [], 2.0
    while at < seconds - 3:
        label = list(CLASSES)[rng.integers(len(CLASSES))]
        sound = sweep(*CLASSES[label], rng)
        place = round(at * SAMPLE_RATE)
        samples[place : place + len(sound)] += sound
        truth.append(Event(label, at, at + len(sound) / SAMPLE_RATE, 1.0))
        at += rng.uniform(3, 5)
    return samples, truth


def f1(found: list[Event], truth: list[Event]) -> float:
    """Event F1: an event is right if it overlaps one of its label that no other has claimed."""
    left, right = list(truth), 0
    for event in found:
        match = next((t for t in left if t.label == event.label and t.start < event.end and event.start < t.end), None)
        if match:
            left.remove(match)
            right += 1
    return 2 * right / max(1, len(found) + len(truth))


def train(root: Path, clips: int, epochs: int) -> Path:
    """A micro model of the six sounds and of noise alone."""
    rng = np.random.default_rng(5)
    for name, count in (("train", clips), ("val", 2)):
        write_folder(root / name, count, seed=len(name))
        (root / name / "noise").mkdir()
        for number in range(count):
            soundfile.write(root / name / "noise" / f"{number}.wav", background(0.97, rng), SAMPLE_RATE)
    command = f"train --out {root / 'm'} --data.train {root / 'train'} --data.val {root / 'val'} --data.workers 0"
    options = f"--model.size micro --features.frames 96 --epochs {epochs} --patches.sizes 16 32"
    assert main([*command.split(), *options.split()]) == 0
    return root / "m"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a moment."""
    return train(tmp_path_factory.mktemp("events"), 16, 10)


def settings(**changes: object) -> Scan:
    return Scan(**{"coarse": COARSE, "fine": FINE, "ignore": ("noise",), "refine": 0.2} | changes)


def heard(model, samples: np.ndarray, **changes: object) -> tuple[list[Event], Progress]:
    done = Progress()
    pieces = torch.from_numpy(samples.astype(np.float32)).split(SAMPLE_RATE)
    return list(scan(model, pieces, settings(**changes), done)), done


def test_sounds_are_found_where_they_are(trained: Path) -> None:
    model = flexiast.load(trained)
    samples, truth = scene(60, seed=1)
    found, done = heard(model, samples, refine=0.5)
    assert done.seconds == pytest.approx(60, abs=0.5)
    assert 0 < done.refined < done.windows
    assert f1(found, truth) >= 0.5  # a moment's training; the slow test asks for more
    assert all(0 <= event.start < event.end <= 60 for event in found)


@pytest.mark.slow
def test_what_the_coarse_size_is_unsure_of_is_heard_again_and_no_sound_is_lost(trained: Path) -> None:
    model = flexiast.load(trained)
    scenes = [scene(60, seed=seed) for seed in (1, 2, 3)]
    scores, windows = [], []
    for unsure in (0.0, 0.2):
        heards = [heard(model, samples, unsure=unsure) for samples, _ in scenes]
        scores.append(np.mean([f1(found, truth) for (found, _), (_, truth) in zip(heards, scenes, strict=True)]))
        windows.append(sum(done.refined for _, done in heards))
    assert windows[1] > windows[0]
    assert scores[1] >= scores[0]


def resident_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def hour(resident: list[float], minutes: int = 60) -> tuple[Iterator[torch.Tensor], list[Event]]:
    """Parts of a scene that is made minute by minute, and the sounds in it; memory is noted as it is heard."""
    truth: list[Event] = []

    def parts() -> Iterator[torch.Tensor]:
        for minute in range(minutes):
            samples, sounds = scene(60, seed=(1, minute))
            truth.extend(s._replace(start=s.start + 60 * minute, end=s.end + 60 * minute) for s in sounds)
            for part in torch.from_numpy(samples.astype(np.float32)).split(SAMPLE_RATE):
                yield part
                resident.append(resident_mb())

    return parts(), truth


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_an_hour_is_searched_as_well_as_by_a_fine_scan_at_a_share_of_its_cost(tmp_path: Path) -> None:
    """Memory does not grow after the first five minutes."""
    model = flexiast.load(train(tmp_path, 40, 40))
    told = {}
    for name, changes in (("refined", {"unsure": 0.2}), ("fine", {"coarse": FINE, "fine": None})):
        resident, done = list[float](), Progress()
        parts, truth = hour(resident)
        start = time.perf_counter()
        found = list(scan(model, parts, settings(**changes), done))
        factor = (time.perf_counter() - start) / done.seconds
        told[name] = f1(found, truth)
        growth = max(resident) - resident[300]
        print(f"{name}: F1 {told[name]:.3f}, real-time factor {factor:.4f}, memory {growth:+.1f} MB after 5 minutes")
        assert growth < 30
        if name == "refined":
            flops, again = model.config.flops, done.refined / done.windows
            share = (flops(COARSE) + again * flops(FINE)) / flops(FINE)
    print(f"share of the fine scan's cost: {share:.2f}")
    assert told["refined"] >= max(0.9, told["fine"] - 0.02)
    assert share < 0.8


@pytest.mark.slow
def test_an_event_is_told_while_the_stream_goes_on(trained: Path) -> None:
    """The pipe stays open until the first event was read."""
    samples, truth = scene(30, seed=2)
    pcm = (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
    options = "--follow - --coarse 32 --fine 16 --ignore noise --precision fp32 --device cpu"
    program = "import sys; from flexiast.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "events", str(trained), *options.split()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            process.stdin.write(pcm)
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], 600)  # it starts slowly on a busy machine
            assert ready, "nothing was told while the stream was open"
            start, end, label, _ = process.stdout.readline().decode().split("\t")
            assert process.poll() is None
            assert f1([Event(label, float(start), float(end), 1.0)], truth) > 0
            process.stdin.close()
            assert process.wait(600) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("suffix", [".csv", ".json", ".txt", ".rttm"])
def test_events_are_written_as_they_come(suffix: str, tmp_path: Path) -> None:
    out, event = tmp_path / f"e{suffix}", Event("dog, small", 1.0, 2.5, 0.75)
    with events_file(out, "a b.wav", lambda: True) as add:
        for number in range(3):
            add(event._replace(label=f"dog, {number}"))
            (unfinished,) = tmp_path.glob("*.part")
            written = unfinished.read_text()
            assert [f"dog, {n}" in written or f"dog,_{n}" in written for n in range(3)] == [
                n <= number for n in range(3)
            ]
        assert not out.exists()
    if suffix == ".json":
        content = json.loads(out.read_text())
        assert content["recording"] == "a b.wav"
        assert [e["label"] for e in content["events"]] == ["dog, 0", "dog, 1", "dog, 2"]
    with events_file(tmp_path / f"none{suffix}", "b.wav", lambda: False):
        pass
    with events_file(tmp_path / f"empty{suffix}", "b.wav", lambda: True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {f"e{suffix}", f"empty{suffix}"}


@pytest.mark.parametrize(
    ("loss", "scores", "again"),
    [
        ("ce", [0.05, 0.05, 0.45, 0.45], False),  # silence or noise: it does not matter which
        ("ce", [0.09, 0.09, 0.42, 0.4], False),
        ("ce", [0.45, 0.45, 0.05, 0.05], True),
        ("ce", [0.3, 0.35, 0.2, 0.15], True),
        ("bce", [0.01, 0.01, 0.5, 0.5], False),
        ("bce", [0.4, 0.01, 0.0, 0.0], True),
    ],
)
def test_doubt_about_classes_of_interest_asks_for_a_second_look(loss: str, scores: list[float], again: bool) -> None:
    kept, how = np.array([True, True, False, False]), settings(refine=1.0, unsure=0.1, ignore=())
    assert events._to_refine(np.array([scores]), how, kept, loss).tolist() == [again]
    never = settings(refine=1.0, unsure=0.0, ignore=())
    assert events._to_refine(np.array([scores]), never, kept, loss).tolist() == [False]


def test_doubt_is_judged_at_the_curves_temperature() -> None:
    kept, scores = np.array([True, True]), np.array([[0.7, 0.3]])
    for temperature, again in ((1.0, False), (10.0, True)):
        how = settings(refine=1.0, unsure=0.2, temperature=temperature)
        assert events._to_refine(scores, how, kept, "ce").tolist() == [again]


@pytest.mark.slow
def test_the_command_writes_every_format_and_the_stream_gives_the_same(
    trained: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    samples, _ = scene(30, seed=2)
    pcm = (samples.clip(-1, 1) * 32767).astype("<i2")
    soundfile.write(tmp_path / "s.wav", pcm, SAMPLE_RATE)
    base = ["events", str(trained)]
    options = ["--coarse", "32", "--fine", "16", "--ignore", "noise", "--precision", "fp32"]
    for suffix in ("csv", "json", "txt", "rttm"):
        assert main([*base, str(tmp_path / "s.wav"), *options, "--out", str(tmp_path / f"e.{suffix}")]) == 0
    assert "real-time factor" in capsys.readouterr().out
    found = json.loads((tmp_path / "e.json").read_text())["events"]
    assert found
    rows = (tmp_path / "e.csv").read_text().splitlines()
    first = found[0]
    assert rows[0] == "label,start,end,score"
    assert rows[1] == f"{first['label']},{first['start']:.3f},{first['end']:.3f},{first['score']:.4f}"
    assert (tmp_path / "e.txt").read_text().split("\n")[0] == "\t".join(
        [f"{first['start']:.3f}", f"{first['end']:.3f}", first["label"]]
    )
    words = (tmp_path / "e.rttm").read_text().splitlines()[0].split(" ")
    assert words[:3] == ["SPEAKER", "s", "1"]
    assert float(words[3]) + float(words[4]) == pytest.approx(first["end"], abs=2e-3)
    assert len(words) == 10
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(pcm.tobytes())))
    assert main([*base, "--follow", "-", *options]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[2], float(line[0])) for line in lines] == [
        (e["label"], pytest.approx(e["start"], abs=0.01)) for e in found
    ]
    assert main([*base, str(tmp_path / "s.wav"), "--out", str(tmp_path / "e.csv")]) == 2
    assert main([*base, str(tmp_path / "s.wav"), "--out", str(tmp_path / "e.wav")]) == 2
    assert main([*base, "-"]) == 2
    assert "--follow -" in capsys.readouterr().err


def test_what_was_found_before_a_fault_is_written(trained: Path, tmp_path: Path, monkeypatch) -> None:
    samples, _ = scene(30, seed=2)
    soundfile.write(tmp_path / "s.wav", samples, SAMPLE_RATE)

    def broken(*_arguments: object):
        yield torch.from_numpy(samples.astype(np.float32))
        raise flexiast.classifier.events.ConfigError("broken")

    monkeypatch.setattr("flexiast.commands.events.pieces_of", broken)
    assert main(["events", str(trained), str(tmp_path / "s.wav"), "--out", str(tmp_path / "e.csv")]) == 2
    assert len((tmp_path / "e.csv").read_text().splitlines()) > 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_flat(trained: Path) -> None:
    """Half an hour is 115 MB of samples, each part of it new."""
    model, rng = flexiast.load(trained), np.random.default_rng(0)
    resident = []

    def pieces():
        for _ in range(180):
            yield torch.from_numpy(rng.standard_normal(10 * SAMPLE_RATE, dtype=np.float32)) * 0.01
            resident.append(resident_mb())

    done = Progress()
    list(scan(model, pieces(), settings(fine=None, hop=0.96), done))
    assert done.seconds == pytest.approx(1800, abs=1)
    assert max(resident) - resident[20] < 30


def tracked(scores: list[float], **changes: object) -> list[tuple[float, float, float]]:
    """Events of class `a` from its scores in windows of 1 s, every 0.5 s."""
    tracker = events._Tracker(("a", "b"), np.array([True, False]), 0.5, settings(ignore=(), **changes))
    found = [e for i, s in enumerate(scores) for e in tracker.add(i / 2, i / 2 + 1, np.array([s, 1.0]))]
    return [(e.start, e.end, round(e.score, 3)) for e in [*found, *tracker.close()]]


def test_events_begin_and_end_at_their_thresholds() -> None:
    assert tracked([0, 0, 0.9, 0.4, 0.4, 0, 0], smooth=1) == [(1.25, 2.75, 0.9)]
    assert tracked([0, 0, 0.4, 0.4, 0.4, 0, 0], smooth=1) == []
    assert tracked([0.9, 0, 0, 0.8], smooth=1) == [(0.0, 0.75, 0.9), (1.75, 2.5, 0.8)]
    assert tracked([0.9, 0, 0, 0.8], smooth=1, shortest=0.76) == []
    assert tracked([0, 0.9, 0, 0.9, 0], smooth=3, release=0.35) == [(1.25, 1.75, 0.6)]
    assert tracked([0.9, 0.9, 0.9], smooth=3) == [(0.0, 2.0, 0.9)]
    assert tracked([0.9], smooth=9) == [(0.0, 1.0, 0.9)]


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_stream_is_read_as_it_comes(rate: int) -> None:
    time = np.arange(rate) / rate
    pcm = (10_000 * np.sin(2 * np.pi * 440 * time)).astype("<i2")
    stream = io.BytesIO(pcm.tobytes() + b"\0")  # and half a sample
    got = torch.cat(list(pcm_pieces(stream, rate, 16_000, 1000)))
    assert len(got) == pytest.approx(16_000, abs=2)
    expected = 10_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / 16_000)
    assert np.abs(got.numpy() - expected)[200:-200].max() < 1e-3


@pytest.mark.parametrize("wrong", [{"threshold": 2}, {"release": 0.9}, {"smooth": 0}, {"ignore": ("x",)}, {"hop": 9.0}])
def test_wrong_settings_are_refused(trained: Path, wrong: dict) -> None:
    with pytest.raises(ConfigError):
        heard(flexiast.load(trained), np.zeros(SAMPLE_RATE), **wrong)


def test_what_the_command_is_told_reaches_the_scan(trained: Path, tmp_path: Path) -> None:
    point = Point(COARSE, 16, 0.1, 0.8, 2.5, 0.1, 0.1)
    model = SimpleNamespace(curve=Curve("accuracy", 9, (point,), (), {}), metadata={})
    config = EventsConfig(checkpoint=trained, recording=tmp_path / "a.wav", unsure=0.3, fine=FINE)
    made = command_scan(config, model)
    assert (made.coarse, made.fine, made.unsure, made.temperature) == (COARSE, FINE, 0.3, 2.5)
