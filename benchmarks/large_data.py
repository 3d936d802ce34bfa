#!/usr/bin/env python3
"""Opening a manifest of two million clips, CSV and AST's JSON: the time, and the memory that a process needs.

    python benchmarks/large_data.py [--quick] [--clips N] [--rounds N]

Against an object for each clip and each path, as a first program has them; against the parsers alone; against pandas
where it is installed (its import counts as memory). These check nothing and join no rows. Only the first file is there.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import Report, arguments, run

from flexiast.data.clips import Clip
from flexiast.data.labels import Labels
from flexiast.data.manifest import read_manifest, write_manifest

LABELS = Labels.of(f"class {number}" for number in range(527))
Opener = Callable[[Path], Sequence[Any]]


def ours(source: Path) -> Sequence[Any]:
    return read_manifest(source, LABELS).clips


def parsed(source: Path) -> Sequence[Any]:
    with open(source, newline="", encoding="utf-8") as file:
        return json.load(file)["data"] if source.suffix == ".json" else list(csv.reader(file))[1:]


def objects(source: Path) -> Sequence[Any]:
    """A clip and a path for each entry."""
    index = LABELS.index()
    entries = parsed(source)
    pairs = ((e["wav"], e["labels"]) if isinstance(e, dict) else e for e in entries)
    return [Clip(source.parent / name, (index[label],)) for name, label in pairs]


def in_pandas(source: Path) -> Sequence[Any]:
    import pandas

    return pandas.read_csv(source).to_records()


OPENERS: dict[str, Opener] = {"read_manifest": ours, "the parser alone": parsed, "an object per clip": objects}
if find_spec("pandas"):
    OPENERS["pandas.read_csv"] = in_pandas


def memory(name: str, source: Path) -> str:
    """Peak and lasting megabytes that opening a manifest takes in a process of its own, forked from this one."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        peak, kept = pool.apply(_grown, (name, source))
    return f"{peak:.0f} MB, then {kept:.0f} MB"


def _grown(name: str, source: Path) -> tuple[float, float]:
    before = _megabytes("VmRSS")
    kept = OPENERS[name](source)
    assert len(kept)
    return _megabytes("VmHWM") - before, _megabytes("VmRSS") - before


def _megabytes(field: str) -> float:
    found = re.search(rf"{field}:\s*([0-9]+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def write(folder: Path, clips: int) -> list[Path]:
    """The same manifest in either format."""
    (folder / "part000").mkdir()
    (folder / "part000" / "clip00000000.flac").touch()

    def entries() -> Iterator[tuple[str, str]]:
        return ((f"part{n % 100:03d}/clip{n:08d}.flac", LABELS.mids[n % len(LABELS)]) for n in range(clips))

    write_manifest(folder / "m.json", entries())
    with open(folder / "m.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(("path", "label"))
        csv.writer(file).writerows(entries())
    return [folder / "m.csv", folder / "m.json"]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = arguments(__doc__, argv, clips=(int, 2_000_000, "clips in the manifest"))
    clips = 1000 if options.quick else options.clips
    report = Report("large_data", options, rounds=3, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        for source in write(Path(folder), clips):
            group = f"{clips:,} clips, {source.suffix}"
            openers = {n: o for n, o in OPENERS.items() if source.suffix == ".csv" or o is not in_pandas}
            report.facts |= {f"memory, {group}, {name}": memory(name, source) for name in openers}
            classes = [[clip.classes[0] for clip in made(source)[:1000]] for made in (ours, objects)]
            report.agree(f"classes of the clips, {source.suffix}", *classes, within=0)
            report.agree(
                f"clips, {source.suffix}", [len(o(source)) for o in openers.values()], [clips] * len(openers), 0
            )
            contenders = {name: lambda opener=opener, s=source: opener(s) for name, opener in openers.items()}
            report.race(group, contenders, against="an object per clip")
    report.finish()


if __name__ == "__main__":
    run(main)
