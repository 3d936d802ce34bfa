"""The command line that all scripts egs/*/prepare.py have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from .download import DATA_ROOT, Archive, data_root, obtain
from .preparation import Checks


class PrepareParser(argparse.ArgumentParser):
    """Options of a script: `DATA_DIR OUT_DIR`, or `--download OUT_DIR` where the data set is free to download.

    missing: default of --missing. val_share: what --val-share is by default, in words, where the public lists name no
    validation clips; the option itself is then None. archive: what --download fetches.
    """

    def __init__(
        self,
        description: str,
        missing: Literal["skip", "refuse"],
        val_share: str | None = None,
        archive: Archive | None = None,
    ) -> None:
        usage = "%(prog)s [options] DATA_DIR OUT_DIR"
        if archive:
            usage += "\n       %(prog)s [options] --download OUT_DIR"
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(usage=usage, description=description, formatter_class=formatter, allow_abbrev=False)
        self.archive = archive
        self.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="DATA_DIR and OUT_DIR")
        self.add_argument(
            "--check",
            choices=["size", "header", "decode"],
            default="header",
            help="how far audio files are read beforehand: not at all, header, all of them (default: header)",
        )
        self.add_argument(
            "--missing",
            choices=["skip", "refuse"],
            default=missing,
            help=f"clips without a usable file: skip them and list them in missing.csv, or refuse (default: {missing})",
        )
        if val_share is not None:
            self.add_argument(
                "--val-share",
                type=float,
                metavar="X",
                help=f"share of the training clips held out for validation, 0 for none (default: {val_share})",
            )
        if archive:
            self.add_argument("--download", action="store_true", help=f"fetch and unpack {archive.url} first")
            self.add_argument(
                "--data-root",
                type=Path,
                metavar="DIR",
                help=f"where downloads go (default: the environment variable {DATA_ROOT})",
            )

    def error(self, message: str) -> NoReturn:
        """One line, as of every other mistake."""
        self.exit(2, f"{self.prog}: error: {message}; see --help\n")

    def settle(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The options, with `checks` made of some of them; exits with the usage if they are wrong."""
        options = self.parse_intermixed_args(argv)
        options.checks = Checks(options.check, options.missing)
        options.download = self.archive is not None and options.download
        expected = 1 if options.download else 2
        if len(options.folders) != expected:
            named = "OUT_DIR" if options.download else "DATA_DIR OUT_DIR"
            self.error(f"found {len(options.folders)} folders, expected {named}")
        return options

    def folders(self, options: argparse.Namespace) -> tuple[Path, Path]:
        """DATA_DIR, downloaded first if asked for, and OUT_DIR. Raises FlexiASTError if it cannot be."""
        *data_dir, out_dir = options.folders
        if self.archive is None or not options.download:
            return data_dir[0], out_dir
        return obtain(self.archive, data_root(options.data_root)), out_dir
