"""Checkpoints published by their authors, by name: where to download each, what to expect in it, where it is kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..data.prepare.download import DATA_ROOT, fetch
from ..errors import CheckpointError, DataError
from .checkpoint import Checkpoint, read_checkpoint

FOLDER = Path(__file__).resolve().parents[2] / "pretrained_models"
"""Where `fetch.py` stores them; next to `src` in a checkout."""


@dataclasses.dataclass(frozen=True)
class Release:
    """A checkpoint published by its authors."""

    url: str
    """Download link of the file."""
    page: str
    """Web page for downloading it by hand."""
    format: str
    """Name of the format that the reader must recognise."""
    classes: int
    size: int | None = None
    """Size in bytes; None where not published."""
    sha256: str | None = None
    """Checksum; None where not published."""


def _drive(file_id: str, classes: int) -> Release:
    """A released FlexiAST on Google Drive; `confirm` skips the virus-scan page shown for large files."""
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


def released_file(name: str) -> Path:
    """The file of a release that was fetched earlier: in pretrained_models, or in the folder named by FLEXIAST_DATA.

    Raises CheckpointError, which says how to fetch it, if it is in neither.
    """
    folders = [FOLDER, *(Path(root) for root in [os.environ.get(DATA_ROOT)] if root)]
    for folder in folders:
        if (folder / f"{name}.pth").is_file():
            return folder / f"{name}.pth"
    raise CheckpointError(
        f"{name}: a released checkpoint that is not here yet; fetch it with `python pretrained_models/fetch.py {name}`"
        f" (looked for {name}.pth in {' and '.join(map(str, folders))})"
    )


def obtain(name: str, directory: Path) -> tuple[Path, str, Checkpoint]:
    """The file of a release, its SHA-256 and the checkpoint in it; downloads the file if it is not there yet.

    Raises DataError if the download fails, CheckpointError if the file is not the expected checkpoint.
    """
    release, path = RELEASES[name], directory / f"{name}.pth"
    digest = fetch(release.url, path, sha256=release.sha256, size=release.size)
    with open(path, "rb") as file:
        start = file.read(256).lstrip()[:1]
    if start == b"<":
        path.unlink()
        raise DataError(
            f"{release.url}: found a web page, expected a checkpoint (a question to confirm, a used-up quota, or a link"
            f" that is gone); download it by hand from {release.page} to {path}"
        )
    checkpoint = read_checkpoint(path)
    contents = (checkpoint.report.format if checkpoint.report else "", checkpoint.config.classes)
    if contents != (release.format, release.classes):
        raise CheckpointError(f"{path}: found {contents}, expected {(release.format, release.classes)}")
    return path, digest, checkpoint
