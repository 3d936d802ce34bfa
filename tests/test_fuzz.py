"""Whatever a file holds, its reader returns something valid or raises an error that names the file, in bounded memory.

Every check runs in a forked process, whose peak memory is watched and which may crash without taking the tests along.
The examples are the same in every run; the slow tests take many more of them.
"""

import csv
import io
import json
import multiprocessing
import os
import random
import resource
import struct
import subprocess
import tarfile
import traceback
import zipfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import flexiast
from flexiast import PatchSize
from flexiast.data.audio import check_audio, decode, decode_pieces
from flexiast.data.ffmpeg import find_ffmpeg
from flexiast.data.manifest import Labels, distinct_labels, read_manifest
from flexiast.data.opening import MAX_CHANNELS
from flexiast.data.pack import pack
from flexiast.data.resampling import resample, resample_without_table
from flexiast.errors import CheckpointError, ConfigError, DataError
from flexiast.traintest.checkpointing import load_state

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = [40, pytest.param(3000, marks=pytest.mark.slow)]
TABLE = Labels(("a", "b", "/m/1"), ("A", "B, or so", "Ä"))
MOST_MEMORY = 300
"""MiB that a reader may take beside what the process had; most take a few."""
T = TypeVar("T")


def in_child(check: Callable[[], object]) -> None:
    """Run a check in a forked process; fail as it fails, or if it dies or takes too much memory."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def peak() -> int:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return max(own.ru_maxrss, children.ru_maxrss) // 1024

    def run() -> None:
        before = peak()
        try:
            check()
            sender.send(f"took {peak() - before} MiB" if peak() - before > MOST_MEMORY else "")
        except BaseException:
            sender.send(traceback.format_exc())
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    sender.close()
    try:
        failure = receiver.recv()
    except EOFError:
        process.join()
        failure = f"died with exit code {process.exitcode}"
    process.join()
    assert not failure, failure


def attempt(read: Callable[[], T], kind: type[Exception], named: object = "") -> T | None:
    """What `read` returns; None if it raises an error of this kind that holds `named`."""
    try:
        return read()
    except kind as error:
        if str(named) not in str(error):
            raise AssertionError(f"{error} does not name {named}") from error
        return None


def fuzz(check: Callable[[Any], object], values: st.SearchStrategy[Any], examples: int) -> None:
    """Run a check on many values, or on what they return if they are functions."""
    quiet = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    in_child(quiet(given(values)(lambda value: check(value() if callable(value) else value))))


# What files can hold --------------------------------------------------------------------------------------------

ANYTHING = st.text(st.characters(), max_size=8)  # lone surrogates and NUL too
WORDS = st.sampled_from(["a", "b", "a,b", "A", "/m/1", "x.wav", "", ",", " a ", "\0", "\ud800", "../x.wav", "\n"])
SCALARS = st.none() | st.booleans() | st.integers(-10, 10**20) | st.floats() | ANYTHING | WORDS
JSON = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(ANYTHING | WORDS, v, max_size=4))


@st.composite
def edited(draw: st.DrawFn, content: Any) -> Any:
    """JSON content with one to three of its values replaced, removed or added to."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        place, parent = content, None
        while isinstance(place, (dict, list)) and place and draw(st.integers(0, 3)):
            parent = place
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            place = place[key]
        if parent is None:
            return draw(JSON)
        if draw(st.booleans()):
            parent[key] = draw(JSON)
        elif isinstance(parent, dict) and draw(st.booleans()):
            parent[draw(ANYTHING)] = draw(JSON)
        else:
            del parent[key]
    return content


NUMBERS = [0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1]
"""As sizes and counts."""


def damaged(content: bytes, header: int = 200) -> st.SearchStrategy[Callable[[], bytes]]:
    """Bytes cut short, flipped, overwritten, inserted or removed; half of them near the start, where headers are.

    They are made when they are asked for: hypothesis keeps what it draws.
    """
    places = st.integers(0, min(len(content), header)) | st.integers(0, len(content))
    numbers = st.tuples(st.sampled_from("<>"), st.sampled_from(NUMBERS)).map(lambda n: struct.pack(n[0] + "I", n[1]))
    faults = st.tuples(
        places,
        st.just(("cut", b""))
        | st.tuples(st.sampled_from(["insert", "overwrite"]), st.binary(max_size=16) | numbers)
        | st.tuples(st.just("flip"), st.integers(0, 7).map(lambda bit: bytes([1 << bit])))
        | st.tuples(st.just("remove"), st.integers(1, 16).map(bytes)),
    )
    return st.lists(faults, min_size=1, max_size=4).map(lambda several: partial(spoilt, content, several))


def spoilt(content: bytes, faults: list[tuple[int, tuple[str, bytes]]]) -> bytes:
    """Content with these faults; the bytes of a fault are what is put there, or as many as are taken away."""
    result = bytearray(content)
    for place, (fault, new) in faults:
        place = min(place, len(result))
        match fault:
            case "cut":
                del result[place:]
            case "flip" if place < len(result):
                result[place] ^= new[0]
            case "overwrite":
                result[place : place + len(new)] = new
            case "insert":
                result[place:place] = new
            case "remove":
                del result[place : place + len(new)]
    return bytes(result)


# Manifests and tables -------------------------------------------------------------------------------------------

MANIFEST = {"data": [{"wav": "x.wav", "labels": "a,b"}, {"wav": "/y/z.flac", "labels": "/m/1"}]}


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_manifest_json(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    (tmp_path / "x.wav").touch()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        attempt(lambda: distinct_labels(path), DataError)
        if found := attempt(lambda: read_manifest(path, TABLE), DataError, path):
            assert all(set(clip.classes) <= {0, 1, 2} for clip in found.clips)
            assert len(found.fingerprint) == 64

    whole = as_json(MANIFEST)
    fuzz(check, edited(MANIFEST).map(as_json) | damaged(whole) | st.binary(max_size=50), examples)


@st.composite
def tables(draw: st.DrawFn, columns: tuple[str, ...]) -> bytes:
    """CSV text that may be right, or not."""
    cells = st.lists(WORDS | ANYTHING | st.integers(-1, 3).map(str), min_size=0, max_size=4)
    rows = [list(columns) if draw(st.booleans()) else draw(cells), *draw(st.lists(cells, max_size=5))]
    text = io.StringIO()
    writer = csv.writer(text, escapechar="\\")
    for row in rows:
        writer.writerow(row)
    return text.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])), errors="surrogatepass")


@pytest.mark.parametrize("examples", EXAMPLES)
def test_manifest_csv(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    (tmp_path / "x.wav").touch()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        for table in (None, TABLE):
            if found := attempt(lambda table=table: read_manifest(path, table), DataError):
                assert all(set(clip.classes) <= set(range(len(found.labels))) for clip in found.clips)
                assert len(found.fingerprint) == 64

    good = b'path,label\nx.wav,a\n"y,z.wav","a,b"\n'
    fuzz(check, tables(("path", "label")) | damaged(good) | st.binary(max_size=50), examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_label_table(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        if labels := attempt(lambda: Labels.read(path), DataError, path):
            labels.write(path)
            assert Labels.read(path).mids == labels.mids

    good = b"index,mid,display_name\n0,a,A\n1,b,B\n"
    columns = ("index", "mid", "display_name")
    fuzz(check, tables(columns) | damaged(good) | st.integers(0).map(lambda i: b"%s%d,x,X" % (good, i)), examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_folders_of_classes(examples: int, tmp_path: Path) -> None:
    """Names are bytes; not all of them are text."""
    forbidden = bytes.maketrans(b"/\0", b"__")
    parts = st.binary(min_size=1, max_size=12).map(lambda b: b.translate(forbidden).strip(b".") or b"x")
    places = st.lists(st.tuples(parts, parts, st.sampled_from([b".wav", b".WAV", b".txt", b""])), max_size=4)
    count = iter(range(10**6))

    def check(names: list[tuple[bytes, bytes, bytes]]) -> None:
        root = os.fsencode(tmp_path / str(next(count)))
        os.mkdir(root)
        for folder, name, suffix in names:
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            with open(os.path.join(root, folder, name + suffix), "wb"):
                pass
        if found := attempt(lambda: read_manifest(Path(os.fsdecode(root))), DataError):
            assert len(found.fingerprint) == 64

    fuzz(check, places, examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_index_of_shards(examples: int, sounds: Path, tmp_path: Path) -> None:
    pack(read_manifest(sounds / "val"), tmp_path / "shards", progress=False)
    path = tmp_path / "shards" / "index.json"
    index = json.loads(path.read_text())

    def check(content: bytes) -> None:
        path.write_bytes(content)
        if found := attempt(lambda: read_manifest(path.parent), DataError, path.parent):
            assert len(found.fingerprint) == 64
            for clip in found.clips[:3]:
                attempt(lambda clip=clip: decode(clip.path, max_samples=16_000), DataError, clip.path)

    fuzz(check, edited(index).map(as_json) | damaged(as_json(index)), examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_patch_size(examples: int) -> None:
    def check(value: Any) -> None:
        if patch := attempt(lambda: PatchSize.parse(value), ConfigError, "patch size: found"):
            assert patch.freq > 0
            assert patch.time > 0
            assert PatchSize.parse(str(patch)) == patch

    numbers = st.integers(-3, 10**12) | st.integers().map(lambda i: i * 10**400)
    texts = st.text("0123456789xX -.", max_size=12) | st.integers(0).map(lambda i: f"{i}" * 500) | ANYTHING
    fuzz(check, numbers | texts | JSON | st.lists(numbers, max_size=3) | st.binary(max_size=4), 5 * examples)


# Checkpoints ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = flexiast.FlexiASTConfig(classes=2, frames=64, bins=32, patch_size="8x16", width=16, depth=1, heads=2)
    model = flexiast.AudioClassifier(
        network, flexiast.FeatureConfig(bins=32, frames=64), Labels(("a", "b"), ("A", "B"))
    )
    directory = tmp_path_factory.mktemp("fuzz") / "model"
    model.save_pretrained(directory)
    return directory


def load_or_refuse(path: Path) -> None:
    """Load a model, or be told its name."""
    if model := attempt(lambda: flexiast.load(path), CheckpointError, path):
        assert len(model.labels) == model.config.classes


@pytest.mark.parametrize("examples", EXAMPLES)
def test_description_of_a_model(examples: int, model_dir: Path) -> None:
    path = model_dir / "config.json"
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        load_or_refuse(model_dir)

    try:
        fuzz(check, edited(json.loads(whole)).map(as_json) | damaged(whole), 2 * examples)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_weights_of_a_model(examples: int, model_dir: Path) -> None:
    path = model_dir / "model.safetensors"
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        load_or_refuse(model_dir)

    try:
        fuzz(check, damaged(whole, header=3000) | st.binary(max_size=100), examples)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_description_of_a_transformers_model(examples: int, tmp_path: Path) -> None:
    source = GOLDEN / "hf_tiny_s10"
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    names = [name for name in ("config.json", "preprocessor_config.json") if (source / name).exists()]

    def check(case: tuple[str, Any]) -> None:
        name, content = case
        (tmp_path / name).write_text(json.dumps(content))
        load_or_refuse(tmp_path)
        (tmp_path / name).write_bytes((source / name).read_bytes())

    cases = [st.tuples(st.just(n), edited(json.loads((source / n).read_text()))) for n in names]
    fuzz(check, st.one_of(cases), examples)


def repacked(content: bytes, pickled: bytes) -> bytes:
    """A zip archive of torch.save with another pickle in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, pickled if entry.filename.endswith("data.pkl") else old.read(entry))
    return out.getvalue()


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", ["flexiast_vit_tiny.pth", "ast_orig_s16_tiny.pth"])
def test_state_dicts(name: str, examples: int, tmp_path: Path) -> None:
    """Damage anywhere in the archive, and in the pickle of one that is otherwise whole; also without an archive."""
    whole, path = (GOLDEN / name).read_bytes(), tmp_path / name
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        pickled = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    older = io.BytesIO()
    torch.save(torch.load(GOLDEN / name), older, _use_new_zipfile_serialization=False)

    def check(content: bytes) -> None:
        path.write_bytes(content)
        load_or_refuse(path)

    inside = damaged(pickled, header=len(pickled)).map(lambda make: lambda: repacked(whole, make()))
    fuzz(check, damaged(whole) | inside | damaged(older.getvalue(), header=5000), examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_damage_to_a_training_state_goes_unnoticed(examples: int, tmp_path: Path) -> None:
    state = {"step": 3, "model": {"weight": torch.randn(20, 20)}, "log_bytes": 5, "config": "{}"}
    path = tmp_path / "step-00000003.pt"
    torch.save(state, path)
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        if found := attempt(lambda: load_state(path), CheckpointError, path):
            weight = found["model"].pop("weight")
            assert torch.equal(weight, state["model"]["weight"])
            assert found == state | {"model": {}}

    fuzz(check, damaged(whole, header=len(whole)), 2 * examples)


@pytest.mark.parametrize("step", [257, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_training_state_goes_unnoticed(step: int, tmp_path: Path) -> None:
    """Every bit of the file, or every 257th; a few are of no consequence, such as those of the padding."""
    path = tmp_path / "step-00000003.pt"
    weight = torch.randn(20, 20)
    torch.save({"step": 3, "weight": weight}, path)
    whole = path.read_bytes()

    def check() -> None:
        for bit in range(0, 8 * len(whole), step):
            path.write_bytes(spoilt(whole, [(bit // 8, ("flip", bytes([1 << bit % 8])))]))
            if found := attempt(lambda: load_state(path), CheckpointError, path):
                assert found.keys() == {"step", "weight"}
                assert found["step"] == 3
                assert torch.equal(found["weight"], weight)

    in_child(check)


def marked_as_folder() -> bytes:
    """A state dict in whose archive the tensor is marked as a folder: torch.load returns uninitialised memory."""
    content = bytearray(saved({"head.weight": torch.zeros(100)}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entry = content.index(b"PK\1\2", archive.start_dir)
        while not content[entry + 46 :].startswith(b"archive/data/0"):
            entry = content.index(b"PK\1\2", entry + 1)
    content[entry + 38] |= 0x10
    return bytes(content)


def compressed_zeros() -> bytes:
    """A state dict of 80 MB of zeros, deflated to 0.4 MB."""
    out = io.BytesIO()
    torch.save({"head.weight": torch.zeros(10, 2_000_000)}, out)
    small = io.BytesIO()
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return small.getvalue()


def saved(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: saved({"head.weight": torch.zeros(1).expand(10**6, 10**6)}), "its tensors would take 4000000000000"),
        (lambda: saved({"head.weight": torch.empty(10**6, 10**6, device="meta")}), "found torch.float32 on meta"),
        (lambda: saved({"head.weight": torch.eye(3).to_sparse()}), "as torch.sparse_coo"),
        (lambda: saved({"head.weight": torch.zeros(3, dtype=torch.complex64)}), "found torch.complex64"),
        (compressed_zeros, "bytes packed into"),
        (marked_as_folder, "found a folder in the archive"),
    ],
    ids=["expanded", "meta", "sparse", "complex", "compressed", "folder"],
)
def test_a_file_that_promises_more_than_it_holds_is_refused(make: Callable[[], bytes], found: str, tmp_path) -> None:
    path = tmp_path / "bomb.pth"
    path.write_bytes(make())

    def check() -> None:
        with pytest.raises(CheckpointError, match=found):
            flexiast.load(path)

    in_child(check)


@pytest.mark.parametrize(
    ("description", "found"),
    [
        ({"model_args": {"embed_dim": 10**6, "device": "cpu"}}, "model_args device"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "model_args checkpoint_path"),
        ({"model_args": {"pretrained": True}}, "model_args pretrained"),
        ({"model_args": {"depth": 10**9}}, "1000000000 blocks, but only"),
        ({"architecture": "hf-hub:somebody/model"}, "timm cannot build 'hf-hub:somebody/model'"),
    ],
    ids=["memory", "other file", "download", "depth", "other model"],
)
def test_a_description_for_timm_cannot_fetch_read_or_build_anything_else(description, found, tmp_path: Path) -> None:
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight")
    shapes = ((1, 1, 8), (1, 5, 8), (8, 3, 16, 16), (8,))
    save_file({n: torch.zeros(s) for n, s in zip(names, shapes, strict=True)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224", **description}))

    def check() -> None:
        with pytest.raises(CheckpointError, match=found):
            flexiast.load(tmp_path)

    in_child(check)


# Audio ----------------------------------------------------------------------------------------------------------


def encoded(suffix: str, seconds: float = 0.5, channels: int = 1, **options: Any) -> bytes:
    samples, out = np.random.default_rng(0).uniform(-0.5, 0.5, (int(seconds * 16_000), channels)), io.BytesIO()
    soundfile.write(out, samples, 16_000, format=suffix.upper(), **options)
    return out.getvalue()


def hear(path: Path) -> None:
    """Decode in every way there is, as far as a minute or two."""
    for read in (
        lambda: [decode(path, max_samples=32_000)],
        lambda: [decode(path, max_samples=32_000, resampler="soxr", suspicions=[])],
        lambda: list(islice(decode_pieces(path), 2)),
        lambda: check_audio(path),
    ):
        pieces = attempt(read, DataError, path) or []
        assert all(torch.isfinite(piece).all() and piece.ndim == 1 for piece in pieces)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_audio(suffix: str, examples: int, tmp_path: Path) -> None:
    whole, path = encoded(suffix), tmp_path / f"clip.{suffix}"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        hear(path)

    fuzz(check, damaged(whole, header=100) | st.binary(max_size=200), examples)


@pytest.mark.slow
@pytest.mark.skipif(find_ffmpeg() is None, reason="needs ffmpeg: pip install imageio-ffmpeg")
@pytest.mark.parametrize("examples", [10, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["clip.m4a", "clip.webm", "clip.wma", "clip.aac", "clip.voc", "clip.mp3"])
def test_audio_for_ffmpeg(name: str, examples: int, tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(encoded("wav"))
    options = ["-write_xing", "0", "-q:a", "0"] if name == "clip.mp3" else []
    command = [find_ffmpeg(), "-v", "error", "-i", tmp_path / "clip.wav", *options, tmp_path / name]
    subprocess.run(command, check=True)
    whole, path = (tmp_path / name).read_bytes(), tmp_path / name

    def check(content: bytes) -> None:
        path.write_bytes(content)
        hear(path)

    fuzz(check, damaged(whole, header=len(whole) // 4), examples)


def wav(rate: int, channels: int, bytes_of_data: int, data: bytes = bytes(3200)) -> bytes:
    """A wav file of 16-bit samples whose header claims so many bytes of them."""
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * channels * 2, 2**32 - 1), 2 * channels % 2**16, 16)
    header = b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return header + b"data" + struct.pack("<I", bytes_of_data) + data


def flac_that_claims(samples: int) -> bytes:
    """STREAMINFO holds the number of samples in the low 36 bits of bytes 18 to 25 of the file."""
    content = bytearray(encoded("flac"))
    head = int.from_bytes(content[18:26], "big")
    content[18:26] = (head >> 36 << 36 | samples).to_bytes(8, "big")
    return bytes(content)


HOSTILE = {
    "2^32 bytes claimed": lambda: wav(16_000, 1, 2**32 - 1),
    "ten hours at 384 kHz claimed": lambda: wav(384_000, 1, 2**32 - 2),
    "64 channels": lambda: wav(384_000, MAX_CHANNELS, 2**32 - 1, bytes(128_000)),
    "1,024 channels": lambda: wav(16_000, 1024, 2**31, bytes(1_000_000)),
    "65,535 channels": lambda: wav(16_000, 65_535, 2**31, bytes(1_000_000)),
    "no channels": lambda: wav(16_000, 0, 3200),
    "a rate of 0": lambda: wav(0, 1, 3200),
    "a rate of 1 Hz": lambda: wav(1, 1, 3200),
    "a rate of no simple ratio": lambda: wav(383_999, 1, 800_000, random.Random(0).randbytes(800_000)),
    "44,101 Hz": lambda: wav(44_101, 1, 200_000, random.Random(0).randbytes(200_000)),
    "flac of 2^36 samples": lambda: flac_that_claims(2**36 - 1),
    "flac of 2^31 samples": lambda: flac_that_claims(2**31),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_header_claims_is_not_allocated(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{'flac' if 'flac' in name else 'wav'}"
    path.write_bytes(HOSTILE[name]())
    in_child(lambda: hear(path))


def test_a_tar_full_of_holes_is_read_in_parts(tmp_path: Path) -> None:
    """Its clip is really 2.5 GB long, of which the disk holds no more than the header."""
    path, clip, size = tmp_path / "a.tar", wav(16_000, 1, 2_500_000_000, b""), 2_500_000_000
    members = {"1.wav": (clip, len(clip) + size), "1.txt": (b"dog", 3)}
    with open(path, "wb") as file:
        for name, (content, length) in members.items():
            info = tarfile.TarInfo(name)
            info.size = length
            file.write(info.tobuf() + content)
            file.seek(-(-(file.tell() - len(content) + length) // 512) * 512)
        file.write(bytes(1024))

    def check() -> None:
        (clip,) = read_manifest(path).clips
        assert len(decode(clip.path, max_samples=163_920)) == 163_920
        assert [len(piece) for piece in islice(decode_pieces(clip.path), 3)] == [60 * 16_000] * 3

    in_child(check)


def test_ten_hours_at_384_khz_are_streamed(tmp_path: Path) -> None:
    """The file is really that long, 13.8 GB of which the disk holds no more than the header."""
    path = tmp_path / "long.wav"
    samples = 10 * 3600 * 384_000
    form = struct.pack("<HHIIHH", 1, 1, 384_000, 384_000, 1, 8)
    sizes = struct.pack("<IQQQI", 28, samples + 72, samples, samples, 0)
    header = b"RF64" + b"\xff" * 4 + b"WAVEds64" + sizes + b"fmt " + struct.pack("<I", 16) + form
    path.write_bytes(header + b"data" + b"\xff" * 4)
    os.truncate(path, path.stat().st_size + samples)

    def check() -> None:
        assert soundfile.info(path).frames == samples
        assert len(decode(path, max_samples=163_920)) == 163_920
        assert [len(piece) for piece in islice(decode_pieces(path), 20)] == [7 * 16_000] * 20

    in_child(check)


@pytest.mark.parametrize(("source", "target"), [(44_100, 16_000), (8000, 16_000), (16_000, 22_050), (96_000, 16_000)])
def test_resampling_without_a_table_is_that_with_one(source: int, target: int) -> None:
    waveform = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    # torchaudio rounds the places of its table to float32: 1e-4 of samples of up to 4
    torch.testing.assert_close(
        resample_without_table(waveform, source, target), resample(waveform, source, target), atol=1e-4, rtol=0
    )
    assert resample_without_table(waveform[:0], source, target).shape == (0,)
