"""Recognise an audio file by its first bytes, and predict whether libsndfile would stop before the end of its sound."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

MAGIC = (  # offset, bytes, ffmpeg's name of the format
    (0, b"RF64", "wav"),
    (0, b"FORM", "aiff"),
    (0, b".snd", "au"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"caff", "caf"),
    (0, b"riff\x2e\x91", "w64"),
    (0, b"Creative Voice File", "voc"),
    (0, b"wvpk", "wv"),
    (0, b"\x0b\x77", "ac3"),
    (0, b"#!AMR", "amr"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
)
_JUNK = 1 << 20
"""Most bytes between the frames of an MP3 to search for the next frame."""
_GAP = 1000
"""Bytes between frames after which libmpg123 may give up (it searches 1,024)."""
# Kilobits per second by the four bits of an MPEG frame's header: MPEG-1 layers I, II, III, then MPEG-2 layer I, II/III.
_BITRATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def container(content: BinaryIO) -> str | None:
    """The format according to the first bytes, as ffmpeg calls it, or None; a leading ID3 tag is skipped."""
    head = _at(content, _after_tag(content), 20)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    for offset, magic, name in MAGIC:
        if head[offset:].startswith(magic):
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return "mp3" if _frame(head) else None


def falls_short(content: BinaryIO, kind: str | None, seconds: float) -> bool:
    """Whether a file of this format (see `container`) holds more than the `seconds` that libsndfile would read."""
    if kind == "mp3":
        return _mp3_falls_short(content, seconds)
    if kind == "ogg":
        return _is_chained(content)
    if kind == "flac":  # the number of samples was unknown when the header was written
        head = _at(content, _after_tag(content), 26)
        return int.from_bytes(head[18:26], "big") & (1 << 36) - 1 == 0
    return False


def with_length(content: BinaryIO, kind: str | None) -> bytes | None:
    """For a WAV or AU file whose header claims 0 bytes of samples: the header, saying "to the end of the file" instead.

    Recorders write such a header first, and the length only when they are stopped. None for all other files, and for
    those with nothing after the header.
    """
    size = content.seek(0, io.SEEK_END)
    head = bytearray(_at(content, 0, 1 << 16))
    if kind == "au" and head[8:12] == bytes(4) and size > 28:
        head[8:12] = b"\xff" * 4
        return bytes(head)
    if kind != "wav":
        return None
    place = 12
    while place + 8 <= len(head):
        name, length = head[place : place + 4], int.from_bytes(head[place + 4 : place + 8], "little")
        if name == b"data":
            start, rest = place + 8, size - place - 8
            after = int.from_bytes(head[start + 4 : start + 8], "little") + 8
            if rest <= 0 or after == rest:  # nothing, or only another chunk
                return None
            head[0:8] = b"RIFF" + b"\xff" * 4
            head[place + 4 : start] = b"\xff" * 4
            return bytes(head)
        if name == b"ds64":
            head[place : place + 4] = b"JUNK"
        place += 8 + length + length % 2
    return None


def _at(content: BinaryIO, place: int, count: int) -> bytes:
    content.seek(place)
    return content.read(count)


def _after_tag(content: BinaryIO) -> int:
    """Where the content begins: after the ID3v2 tags, if there are any."""
    place = 0
    for _ in range(8):
        head = _at(content, place, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        place += 10 + _tag_size(head)
    return place


def _tag_size(head: bytes) -> int:
    return sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


class _Frame(NamedTuple):
    """A frame of an MP3: its bytes, its samples, its sample rate, and where a Xing header would be in it."""

    size: int
    samples: int
    rate: int
    xing: int


def _frame(head: bytes) -> _Frame | None:
    """The MPEG audio frame with these first four bytes; None if they begin no frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)  # version 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5
    bits, rate_bits, padding, mono = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1, head[3] >> 6 == 3
    if version == 1 or layer == 4 or rate_bits == 3 or bits in (0, 15):
        return None
    rate = (44_100, 48_000, 32_000)[rate_bits] >> (0, 1, 2)[(3, 2, 0).index(version)]
    bitrate = 1000 * _BITRATES[(1, layer) if version == 3 else (2, min(layer, 2))][bits]
    if layer == 1:
        return _Frame(4 * (12 * bitrate // rate + padding), 384, rate, 0)
    samples = 576 if layer == 3 and version != 3 else 1152
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Frame(samples // 8 * bitrate // rate + padding, samples, rate, 4 + side)


def _mp3_falls_short(content: BinaryIO, seconds: float) -> bool:
    """Compare with the number of frames, counted one by one unless the file itself states its length."""
    size = content.seek(0, io.SEEK_END)
    start = _after_tag(content)
    first = _at(content, start, 200)
    frame = _frame(first)
    stated = None  # frames after this one, according to the header that encoders write last
    if frame and first[frame.xing : frame.xing + 4] in (b"Xing", b"Info"):
        flags, frames, length = struct.unpack(">3I", first[frame.xing + 4 : frame.xing + 16].ljust(12, b"\0"))
        stated = frames if flags & 1 else None
        tag = 128 if size >= 128 and _at(content, size - 128, 3) == b"TAG" else 0
        if flags & 3 == 3 and start + length + tag == size:
            return False
    elif frame and first[36:40] == b"VBRI":
        stated = int.from_bytes(first[50:54], "big")
    frames, held, gap = _count_frames(content, start)
    if gap > _GAP:
        return True
    if stated is not None:
        return frames - 1 > stated + 1
    return frames > 2 and held - 2 * held / frames > seconds


def _count_frames(content: BinaryIO, place: int) -> tuple[int, float, int]:
    """The number of frames of an MP3, their length in seconds, and the bytes of anything else between them."""
    frames, seconds, junk, gap = 0, 0.0, 0, 0
    while len(head := _at(content, place, 10)) >= 4:
        frame = _frame(head)
        if frame and junk > gap and not _frame(_at(content, place + frame.size, 4)):
            frame = None  # bytes that only look like one
        if frame:
            frames, seconds, gap, step = frames + 1, seconds + frame.samples / frame.rate, junk, frame.size
        elif head[:3] == b"ID3" and len(head) == 10:
            step = 10 + _tag_size(head)
        elif head[:3] == b"TAG":
            step = 128
        else:
            step = 1
            junk += 1
            if junk > _JUNK:
                break
        place += max(1, step)
    return frames, seconds, gap


def _is_chained(content: BinaryIO) -> bool:
    """Whether an Ogg file holds several streams one after the other; looks at every page."""
    place, going_on = 0, False
    while (head := _at(content, place, 27))[:4] == b"OggS" and len(head) == 27:
        begins = bool(head[5] & 2)
        if begins and going_on:
            return True
        going_on = not begins
        place += 27 + head[26] + sum(content.read(head[26]))
    return False
