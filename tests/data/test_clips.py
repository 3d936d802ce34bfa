"""Clips in arrays: as a tuple of clips to whoever uses them, and without a copy in every process."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexiast.data import split
from flexiast.data.clips import Clip, Clips, Paths
from flexiast.data.locate import in_folder, on_disk
from flexiast.data.manifest import Labels, Manifest
from flexiast.data.sampler import balancing_weights
from flexiast.data.shards import ShardMember

FILES = (Clip(Path("a/1.wav"), (1,)), Clip(Path("/2.wav"), ()), Clip(Path("ö"), (2, 0)), Clip(Path("."), (2,)))
MEMBERS = tuple(
    Clip(ShardMember(Path(f"s/{tar}.tar"), tar << 33, 7, name), (tar,))
    for tar, name in [(0, "a/b.wav"), (0, "/x.wav"), (1, "./y//z.wav"), (0, "\0")]
)
KINDS = {"files": FILES, "members": MEMBERS, "both": FILES[:2] + MEMBERS + FILES[2:], "none": ()}
LABELS = Labels.numbers(3)


@pytest.mark.parametrize("clips", KINDS.values(), ids=KINDS)
def test_clips_are_those_they_were_made_of(clips: tuple[Clip, ...]) -> None:
    made = Clips.of(clips)
    assert tuple(made) == clips == tuple(made[place] for place in range(len(made)))
    assert made == clips
    assert [*made.paths] == [clip.path for clip in clips]
    assert Clips.of([*made[1:], *made[:1]]) == clips[1:] + clips[:1]
    assert tuple(made[::-1]) == clips[::-1]
    assert tuple(pickle.loads(pickle.dumps(made[::2]))) == clips[::2]
    if clips:
        assert made[:0] != clips[:1]
        assert made != (*clips[:-1], Clip(clips[-1].path, (0, 1, 2)))


def test_a_manifest_makes_clips_of_any_sequence() -> None:
    manifest = Manifest(Path("m"), [*FILES], LABELS)
    assert isinstance(manifest.clips, Clips)
    assert manifest == Manifest(Path("m"), FILES, LABELS) == pickle.loads(pickle.dumps(manifest))


def test_only_clips_that_are_all_in_shards_have_shards() -> None:
    assert Clips.of(MEMBERS).paths.shards.tolist() == [0, 0, 1, 0]
    assert Clips.of(KINDS["both"]).paths.shards is None
    assert Clips.of(FILES).paths.shards is None


@pytest.mark.parametrize("clips", KINDS.values(), ids=KINDS)
def test_the_fingerprint_is_that_of_earlier_versions(clips: tuple[Clip, ...], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ö").write_bytes(b"123")
    digest = hashlib.sha256()
    for clip in clips:
        name, file = "/".join(clip.path.parts[-2:]), clip.path
        size = file.size if isinstance(file, ShardMember) else file.stat().st_size if file.exists() else -1
        digest.update(f"{name}\t{size}\t{clip.classes}\n".encode())
    assert Manifest(Path("m"), clips, LABELS).fingerprint == digest.hexdigest()


@settings(max_examples=100, deadline=None)
@given(name=st.text("a/.ö", min_size=1, max_size=6))
def test_the_last_two_parts_are_those_of_the_path(name: str) -> None:
    members = Paths.of([ShardMember(Path("t"), 0, 0, name)])
    assert [*members.ends()] == ["/".join(PurePosixPath(name).parts[-2:])]
    assert [*Paths.of([Path(name)]).ends()] == ["/".join(Path(name).parts[-2:])]


# Every name in one folder ----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    folder=st.sampled_from(["", ".", "/", "a", "./a//b/", "/a", "../a"]),
    names=st.lists(st.text("ab/.ö\n", min_size=1, max_size=5), max_size=4),
)
def test_paths_in_a_folder_are_spelled_as_path_does(folder: str, names: list[str]) -> None:
    paths = in_folder(folder, names)
    assert [*paths] == [Path(on_disk(folder, name)) for name in names]
    assert [*paths.names] == [str(path) for path in paths]


# What is counted -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(classes=st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True).map(tuple), min_size=1, max_size=30))
def test_balancing_weights_are_sums_of_shares(classes: list[tuple[int, ...]]) -> None:
    counts = {c: sum(c in (one or (-1,)) for one in classes) for c in range(-1, 6)}
    expected = [sum(1.0 / counts[c] for c in one or (-1,)) for one in classes]
    clips = Clips.of(Clip(Path(str(place)), one) for place, one in enumerate(classes))
    assert balancing_weights(clips.classes).tolist() == expected  # to the last bit, as draws follow from them


def test_a_large_split_is_stratified_by_the_rarest_class_of_each_clip(monkeypatch) -> None:
    monkeypatch.setattr(split, "MOST_GROUPED", 999)
    rng, count = np.random.default_rng(0), 1000
    classes = [((0,), (0, 1), (2, 0), ())[kind] for kind in rng.choice(4, count, p=[0.8, 0.1, 0.05, 0.05])]
    clips = Clips.of(Clip(Path(f"speaker{place % 99}_{place}.wav"), one) for place, one in enumerate(classes))
    made = split.split_off(Manifest(Path("m"), clips, LABELS), 0.1)
    assert made.grouped_by == "each clip by itself"
    for kind in ((0,), (0, 1), (2, 0), ()):
        assert sum(one == kind for one in made.val.clips.classes) == pytest.approx(0.1 * classes.count(kind), abs=2)
    assert {*made.train.clips.paths.names} | {*made.val.clips.paths.names} == {*clips.paths.names}


# Memory ----------------------------------------------------------------------------------------------------------

DRAWS = """
import os, re, sys
import numpy as np
from pathlib import Path
from flexiast.data.manifest import read_manifest
clips = read_manifest(Path(sys.argv[1])).clips
clips = tuple(clips) if sys.argv[2] == "objects" else clips
def dirty():
    return int(re.search(r"Private_Dirty: +([0-9]+)", open("/proc/self/smaps_rollup").read())[1]) / 1024
if not os.fork():
    order = np.random.default_rng(0).integers(len(clips), size=100_000)
    len(str(clips[int(order[0])]))
    before = dirty()
    for clip in order:
        clips[int(clip)].path, clips[int(clip)].classes
    print(dirty() - before, flush=True)
    os._exit(0)
os.wait()
"""


def grown(folder: Path, count: int, kept: str) -> float:
    """Megabytes by which a forked process's own memory grows in 100,000 draws of that many clips."""
    (folder / "0.wav").touch()
    rows = (f"{n}.wav,class {n % 527};class {527 + n % 31}\n" for n in range(count))
    (folder / "t.csv").write_text("path,label\n" + "".join(rows))
    command = [sys.executable, "-c", DRAWS, str(folder / "t.csv"), kept]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux says which memory is whose")
def test_drawing_clips_copies_no_memory_into_a_worker(tmp_path: Path) -> None:
    assert grown(tmp_path, 300_000, "arrays") < 3
    assert grown(tmp_path, 50_000, "objects") > 10  # the measurement would notice
