"""Fetch released checkpoints: `python pretrained_models/fetch.py ast_audioset_16_16 flexiast_vggsound`.

A file is downloaded whole or not at all, checked by size and SHA-256 where they are known, and then read by
`flexiast.load`, which runs none of its code. Sources are listed in README.md beside this script.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

import flexiast
from flexiast.commands.guard import guarded
from flexiast.data.prepare.download import fetch
from flexiast.errors import CheckpointError, ConfigError, DataError

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Release:
    """A checkpoint that its authors have published."""

    url: str
    """Where the file itself is."""
    page: str
    """Where a person finds it."""
    format: str
    """The format that our reader must recognise."""
    classes: int
    size: int | None = None
    """Bytes; none where not published."""
    sha256: str | None = None
    """None where not published."""


def _drive(file_id: str, classes: int) -> Release:
    """A released FlexiAST on Google Drive; `confirm` skips the page about virus scans of large files."""
    return Release(
        f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t",
        f"https://drive.google.com/file/d/{file_id}/view",
        "released FlexiAST state dict",
        classes,
    )


def _dropbox(path: str, classes: int = 527) -> Release:
    """A released AST on Dropbox; `dl=1` asks for the file instead of a page."""
    url = f"https://www.dropbox.com/s/{path}"
    return Release(f"{url}?dl=1", url, "original AST state dict", classes)


RELEASES = {
    "flexiast_audioset": _drive("1pT5zDYUeGIxBRT-u9ux6ponOrCtNg47G", 527),
    "flexiast_vggsound": _drive("13OoeCRR_cEpY7Uf05VD7eJC49JL5kJzk", 309),
    "flexiast_voxceleb": _drive("1w6Ty71Hk2GzS5To2cqnhwcUfIwl4Me7k", 1251),
    "ast_audioset_10_10": _dropbox("ca0b1v2nlxzyeb4/audioset_10_10_0.4593.pth"),
    "ast_audioset_10_10_model1": _dropbox("1tv0hovue1bxupk/audioset_10_10_0.4495.pth"),
    "ast_audioset_10_10_model2": _dropbox("6u5sikl4b9wo4u5/audioset_10_10_0.4483.pth"),
    "ast_audioset_10_10_model3": _dropbox("kt6i0v9fvfm1mbq/audioset_10_10_0.4475.pth"),
    "ast_audioset_12_12": _dropbox("snfhx3tizr4nuc8/audioset_12_12_0.4467.pth"),
    "ast_audioset_14_14": _dropbox("z18s6pemtnxm4k7/audioset_14_14_0.4431.pth"),
    "ast_audioset_16_16": _dropbox("mdsa4t1xmcimia6/audioset_16_16_0.4422.pth"),
    "ast_speechcommands": _dropbox("q0tbqpwv44pquwy/speechcommands_10_10_0.9812.pth", 35),
}


def obtain(name: str, release: Release, directory: Path) -> tuple[Path, str, flexiast.AudioClassifier]:
    """The file, its SHA-256 and the model in it, downloaded if it is not there yet.

    Raises DataError if the server does not give the file, CheckpointError if it is not the checkpoint expected.
    """
    path = directory / f"{name}.pth"
    digest = fetch(release.url, path, sha256=release.sha256, size=release.size)
    with open(path, "rb") as file:
        start = file.read(256).lstrip()[:1]
    if start == b"<":
        path.unlink()
        raise DataError(
            f"{release.url}: found a web page, expected a checkpoint (a question to confirm, a used-up quota, or a link"
            f" that is gone); download it by hand from {release.page} to {path}"
        )
    model = flexiast.load(path)
    found = (model.load_report.format if model.load_report else "", model.config.classes)
    if found != (release.format, release.classes):
        raise CheckpointError(f"{path}: found {found}, expected {(release.format, release.classes)}")
    return path, digest, model


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""

    def run(names: tyro.conf.Positional[tuple[str, ...]], out: Path = HERE) -> None:
        """Fetch released checkpoints and read them.

        names: which ones, see README.md. out: directory for the files.
        """
        if unknown := set(names) - RELEASES.keys() or not names:
            raise ConfigError(f"names: found {unknown if names else 'none'}, expected some of {', '.join(RELEASES)}")
        for name in names:
            path, digest, model = obtain(name, RELEASES[name], out)
            print(f"{model.load_report}\n{path}: SHA-256 {digest}")

    return guarded(lambda: tyro.cli(run, args=argv, prog="fetch.py"))


if __name__ == "__main__":
    sys.exit(main())
