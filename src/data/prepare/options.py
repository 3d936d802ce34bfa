"""The command line shared by all scripts egs/*/prepare.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from .download import DATA_ROOT, Archive, data_root, obtain
from .preparation import Checks


class PrepareParser(argparse.ArgumentParser):
    """Options of a script: `DATA_DIR OUT_DIR`, or `--download OUT_DIR` if the data set is free to download.

    missing: default of --missing. val_share: the default of --val-share, in words, for data sets without official
    validation clips; an option that is not given is None. archive: what --download fetches.
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
            help="how far to check audio files: only their size, their header, or all of their audio (default: header)",
        )
        self.add_argument(
            "--missing",
            choices=["skip", "refuse"],
            default=missing,
            help=f"clips without a usable file: skip and list them in missing.csv, or refuse to go on"
            f" (default: {missing})",
        )
        if val_share is not None:
            self.add_argument(
                "--val-share",
                type=float,
                metavar="X",
                help=f"share of the training clips to hold out for validation, 0 for none (default: {val_share})",
            )
        if archive:
            self.add_argument("--download", action="store_true", help=f"download and unpack {archive.url} first")
            self.add_argument(
                "--data-root",
                type=Path,
                metavar="DIR",
                help=f"where downloads go (default: the environment variable {DATA_ROOT})",
            )

    def error(self, message: str) -> NoReturn:
        """Exit with one line, as for every other mistake of the user."""
        self.exit(2, f"{self.prog}: error: {message}; see --help\n")

    def settle(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse the options, and combine some of them to `checks`; exits with an error if they are wrong."""
        options = self.parse_intermixed_args(argv)
        options.checks = Checks(options.check, options.missing)
        options.download = self.archive is not None and options.download
        expected = 1 if options.download else 2
        if len(options.folders) != expected:
            names = "OUT_DIR" if options.download else "DATA_DIR OUT_DIR"
            self.error(f"found {len(options.folders)} folders, expected {names}")
        return options

    def folders(self, options: argparse.Namespace) -> tuple[Path, Path]:
        """DATA_DIR, downloaded first if asked for, and OUT_DIR. Raises FlexiASTError if the download fails."""
        *data_dir, out_dir = options.folders
        if self.archive is None or not options.download:
            return data_dir[0], out_dir
        return obtain(self.archive, data_root(options.data_root)), out_dir
