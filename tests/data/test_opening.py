"""Every recording is heard to its end, whoever decodes it, and what cannot be read says what to do."""

import io
import re
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast.data import ffmpeg as ffmpeg_module
from flexiast.data import opening
from flexiast.data.audio import check_audio, decode, decode_pieces
from flexiast.data.ffmpeg import FfmpegError, FfmpegStream, find_ffmpeg
from flexiast.data.shards import ShardMember
from flexiast.data.suffixes import AUDIO_SUFFIXES
from flexiast.errors import DataError

RATE = 16_000
SECONDS = 5
needs_ffmpeg = pytest.mark.skipif(find_ffmpeg() is None, reason="needs ffmpeg: pip install imageio-ffmpeg")
WITHOUT = opening.WITHOUT_FFMPEG


def sound() -> np.ndarray:
    """Five seconds that become louder: near silence, which a variable bitrate spends little on, and noise."""
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * RATE) / RATE)
    samples += np.random.default_rng(0).normal(0, 0.1, len(samples))
    samples[:RATE] *= 1e-3
    return samples


def encoded(folder: Path, name: str, *options: str) -> Path:
    """The sound as ffmpeg writes it to a file of this name."""
    soundfile.write(folder / "sound.wav", sound(), RATE)
    command = [find_ffmpeg(), "-v", "error", "-nostdin", "-y", "-i", folder / "sound.wav", *options, folder / name]
    subprocess.run(command, check=True)
    return folder / name


def piped(folder: Path, name: str, container: str) -> Path:
    """The same through a pipe, in which nobody can go back to write the length."""
    soundfile.write(folder / "sound.wav", sound(), RATE)
    command = [find_ffmpeg(), "-v", "error", "-nostdin", "-i", folder / "sound.wav", "-f", container, "pipe:1"]
    (folder / name).write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return folder / name


def written(folder: Path, name: str, **options) -> Path:
    soundfile.write(folder / name, sound(), RATE, **options)
    return folder / name


def twice(path: Path) -> Path:
    path.write_bytes(path.read_bytes() * 2)
    return path


def seconds(waveform: torch.Tensor) -> float:
    return len(waveform) / RATE


def loudness(waveform: torch.Tensor) -> list[float]:
    """Of each second."""
    return [float(second.square().mean().sqrt()) for second in waveform.split(RATE) if len(second) > RATE // 2]


# What libsndfile does not read ----------------------------------------------------------------------------------


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("phone.m4a", ()),
        ("lossless.m4a", ("-c:a", "alac")),
        ("clip.aac", ()),
        ("clip.mp4", ()),
        ("clip.webm", ("-c:a", "libopus")),
        ("clip.mka", ()),
        ("clip.wma", ()),
        ("call.amr", ("-ar", "8000")),
        ("sound.voc", ()),
        ("sound.wv", ()),
        ("flac.ogg", ("-c:a", "flac")),
    ],
)
def test_formats_of_phones_browsers_and_others(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    path = encoded(tmp_path, name, *options)
    assert path.suffix in AUDIO_SUFFIXES
    got = decode(path)
    assert seconds(got) == pytest.approx(SECONDS, abs=0.15)  # lossy formats are made of whole blocks
    lossless = name.split(".")[-1] in ("voc", "wv", "ogg") or "alac" in options
    if lossless:
        assert torch.equal(got, decode(tmp_path / "sound.wav"))
    quiet, *loud = loudness(got)
    assert quiet < min(loud) / 2
    assert min(loud) > 0.1
    content = path.read_bytes()
    assert torch.equal(decode(content), got)
    assert torch.equal(decode(io.BytesIO(content)), got)
    with open(path, "rb") as file:
        assert torch.equal(decode(file), got)
    (tmp_path / "0.tar").write_bytes(b"before" + content + b"after")
    assert torch.equal(decode(ShardMember(tmp_path / "0.tar", 6, len(content), f"a/{name}")), got)
    torch.testing.assert_close(decode(path, max_samples=12_345), got[:12_345], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(list(decode_pieces(path, seconds=1))), got, atol=1e-6, rtol=0)
    check_audio(path, whole=True)


@needs_ffmpeg
def test_voc_of_ffmpeg_is_no_noise(tmp_path: Path) -> None:
    path = encoded(tmp_path, "clip.voc")
    assert torch.equal(decode(path), decode(tmp_path / "sound.wav"))


@needs_ffmpeg
def test_stereo_and_rate_are_those_of_the_file(tmp_path: Path) -> None:
    left, right = (0.5 * np.sin(2 * np.pi * hertz * np.arange(44_100) / 44_100) for hertz in (440, 1000))
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 44_100)
    command = [find_ffmpeg(), "-v", "error", "-i", tmp_path / "stereo.wav", "-c:a", "alac", tmp_path / "stereo.m4a"]
    subprocess.run(command, check=True)
    for downmix in ("mean", "first"):
        torch.testing.assert_close(
            decode(tmp_path / "stereo.m4a", downmix=downmix), decode(tmp_path / "stereo.wav", downmix=downmix)
        )


# Lengths that are a guess ---------------------------------------------------------------------------------------


@needs_ffmpeg
def test_mp3_of_variable_bitrate_without_its_length_is_heard_to_the_end(tmp_path: Path) -> None:
    path = encoded(tmp_path, "vbr.mp3", "-q:a", "0", "-write_xing", "0", "-id3v2_version", "0")
    assert soundfile.info(path).frames < 0.8 * SECONDS * RATE  # libsndfile's guess
    assert seconds(decode(path)) == pytest.approx(SECONDS, abs=0.15)


@needs_ffmpeg
def test_mp3_of_constant_bitrate_needs_no_second_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encoded(tmp_path, "cbr.mp3", "-b:a", "64k", "-write_xing", "0")
    monkeypatch.setattr(opening, "find_ffmpeg", lambda: pytest.fail("asked for ffmpeg"))
    assert seconds(decode(path)) == pytest.approx(SECONDS, abs=0.15)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.opus"])
def test_joined_files_are_heard_to_the_end(name: str, tmp_path: Path) -> None:
    options = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    path = written(tmp_path, name, **options)
    alone = decode(path)
    got = decode(twice(path))
    assert seconds(got) == pytest.approx(2 * SECONDS, abs=0.2)
    assert loudness(got)[5] < 0.01  # the second one's beginning
    assert loudness(got)[9] == pytest.approx(loudness(alone)[4], rel=0.05)


@needs_ffmpeg
def test_bytes_of_something_else_inside_an_mp3_do_not_end_it(tmp_path: Path) -> None:
    path = written(tmp_path, "a.mp3")
    content, junk = path.read_bytes(), np.random.default_rng(0).bytes(5000)
    path.write_bytes(content[: len(content) // 2] + junk + content[len(content) // 2 :])
    assert seconds(decode(path)) == pytest.approx(SECONDS, abs=0.3)


def test_tags_of_an_mp3_are_no_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.mp3")
    whole = decode(path)
    cover = np.random.default_rng(0).bytes(300_000)
    size = bytes(len(cover) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\4\0\0" + size + cover + path.read_bytes() + b"TAG".ljust(128, b"\0"))
    monkeypatch.setattr(opening, "find_ffmpeg", lambda: pytest.fail("asked for ffmpeg"))
    assert torch.equal(decode(path), whole)


@needs_ffmpeg
def test_flac_of_unknown_length_is_heard_to_the_end(tmp_path: Path) -> None:
    path = piped(tmp_path, "streamed.flac", "flac")
    assert torch.equal(decode(path), decode(tmp_path / "sound.wav"))
    assert torch.equal(decode(path.read_bytes()), decode(tmp_path / "sound.wav"))


@pytest.mark.parametrize("length", [0, 2**32 - 1])
@pytest.mark.parametrize(("name", "place"), [("a.wav", 40), ("a.au", 8), ("a.rf64", None)])
def test_recordings_that_were_killed_are_heard_to_the_end(
    name: str, place: int | None, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_ffmpeg", lambda: pytest.fail("asked for ffmpeg"))
    path = written(tmp_path, name, format=name.split(".")[1].upper(), subtype="PCM_16")
    whole = decode(path, integer=True)
    content = bytearray(path.read_bytes())
    if place is None:  # 64-bit lengths, in a chunk of their own
        place = content.index(b"ds64") + 16
        content[place : place + 8] = struct.pack("<Q", length and 2**63)
        content[place + 8 : place + 16] = bytes(8)
    else:
        content[place : place + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    if name == "a.rf64" and length:
        pytest.skip("no recorder writes that")
    for source in (path, bytes(content)):
        assert torch.equal(decode(source, integer=True), whole)


def test_an_empty_recording_with_a_title_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), RATE)
    path.write_bytes(path.read_bytes()[:44] + b"LIST" + struct.pack("<I", 3200) + bytes(3200))
    with pytest.raises(DataError, match="found 0 samples"):
        decode(path)


# Without ffmpeg, and where ffmpeg fails -------------------------------------------------------------------------


@pytest.fixture
def without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_ffmpeg", lambda: None)


@pytest.mark.usefixtures("without_ffmpeg")
def test_without_ffmpeg_one_line_names_the_formats_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "phone.m4a"
    path.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(2000))
    with pytest.raises(DataError) as error:
        decode(path)
    assert str(error.value) == f"{path}: not readable as audio (Format not recognised; {WITHOUT})"
    assert "\n" not in WITHOUT
    assert all(part in WITHOUT for part in ("FLAC", "pip install imageio-ffmpeg", "ffmpeg -i IN OUT.flac"))


@pytest.mark.usefixtures("without_ffmpeg")
@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
def test_without_ffmpeg_half_a_file_is_refused_rather_than_taken_for_all(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    assert seconds(decode(path)) == pytest.approx(SECONDS, abs=0.2)
    with pytest.raises(DataError, match=rf"{name}: not readable as audio \(libsndfile would read only its beginning;"):
        decode(twice(path))


def test_ffmpeg_of_the_system_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    find_ffmpeg.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    try:
        assert find_ffmpeg() == "/opt/ffmpeg"
    finally:
        find_ffmpeg.cache_clear()


@needs_ffmpeg
def test_what_ffmpeg_cannot_read_either_names_both_reasons(tmp_path: Path) -> None:
    path = tmp_path / "broken.m4a"
    path.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(2000))
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*Format not recognised; ffmpeg: \w") as error:
        decode(path)
    assert "\n" not in str(error.value)


@needs_ffmpeg
def test_text_of_any_kind_is_never_given_to_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_ffmpeg", lambda: "/nowhere/ffmpeg")
    for name, content in (("list.m3u8", "#EXTM3U\nfile:/etc/passwd"), ("c.ffconcat", "ffconcat version 1.0\nfile x")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=r"not readable as audio \(Format not recognised\)"):
            decode(tmp_path / name)


def fake_ffmpeg(folder: Path, script: str) -> str:
    path = folder / "fake-ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_ffmpeg_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg_module, "SILENCE", 0.2)
    with pytest.raises(FfmpegError, match=r"stopped, no samples for 0\.2 s"):
        FfmpegStream(fake_ffmpeg(tmp_path, "exec sleep 60"), "x.m4a", "mov")


def test_an_ffmpeg_that_fails_in_the_middle_is_an_error_of_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "".join(f"\\{byte:03o}" for byte in struct.pack(">4s5I", b".snd", 24, 2**32 - 1, 6, RATE, 1))
    script = f"printf '{header}'; head -c 64000 /dev/zero; echo '[aac @ 0x12] bad thing' >&2; exit 1"
    program = fake_ffmpeg(tmp_path, script)
    monkeypatch.setattr(opening, "find_ffmpeg", lambda: program)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(2000))
    assert len(decode(path, max_samples=1000)) == 1000
    with pytest.raises(DataError, match=rf"^{path}: not readable as audio \(bad thing\)"):
        decode(path)


@needs_ffmpeg
def test_names_of_any_kind_are_files(tmp_path: Path) -> None:
    content = encoded(tmp_path, "a.m4a").read_bytes()
    for name in ("-i.m4a", "http:x.m4a", "a%03d.m4a", "ä\udcff.m4a", "a b'c.m4a"):
        (tmp_path / name).write_bytes(content)
        assert seconds(decode(tmp_path / name)) == pytest.approx(SECONDS, abs=0.15)


def test_a_text_file_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found a file of str, expected one opened as 'rb'"):
        decode(io.StringIO("x"))


# The terminal ---------------------------------------------------------------------------------------------------


def test_warnings_of_libmpg123_do_not_reach_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    content = written(tmp_path, "a.mp3").read_bytes()
    rng = np.random.default_rng(0)
    heard = []
    for name, damaged in (
        ("cut", content[: len(content) // 3]),
        ("from the middle", content[len(content) // 2 + 7 :]),
        ("flipped", bytes(b ^ (rng.random() < 0.002) for b in content)),
        ("joined", content * 2),
    ):
        (tmp_path / f"{name}.mp3").write_bytes(damaged)
        for read in (soundfile.read, decode):
            with suppress(DataError, soundfile.LibsndfileError):
                read(tmp_path / f"{name}.mp3")
            heard.append((read, capfd.readouterr().err))
    assert any(text for read, text in heard if read is soundfile.read)  # there is something to keep away
    assert not any(text for read, text in heard if read is decode)
