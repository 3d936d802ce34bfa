"""Every option that a message, a docstring or a page names exists."""

import dataclasses
import re
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from flexiast.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / "src").rglob("*.py"),
    *(ROOT / "docs").rglob("*.md"),
    *map(ROOT.joinpath, ("README.md", "CONTRIBUTING.md")),
]
OTHERS = {
    "--help", "--version", "--config", "--install-completion",  # of every command, or of `flexiast` itself
    "--tyro-print-completion",
    "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id",  # torchrun
    "--max-restarts", "--log",  # torchrun
    "--features",  # the start of several
    "--shm-size", "--porcelain", "--model", "--sparse",  # docker, git, hear-eval-kit, tar
    "--editable", "--force-reinstall", "--no-deps",  # pip
    "--no-save",  # npm
    "--body-text-color", "--border-color-primary", "--background-fill-secondary",  # colours of Gradio's pages
}  # fmt: skip


def options_of(config: Any, prefix: str = "") -> set[str]:
    """The options of a configuration and of its sections."""
    hints = get_type_hints(config)
    found = set[str]()
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        kind = get_args(kind)[0] if get_origin(kind) is not None and get_args(kind) else kind
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(kind):
            found |= options_of(kind, "" if field.name == "train" else f"{name}.")
        else:
            found |= {f"--{name}", "--" + re.sub(r"([^.]+)$", r"no-\1", name)}
    return found


def of_scripts() -> set[str]:
    """The options of recipes and of scripts: those of settings.sh by name, and what argparse is told."""
    shell = " ".join(path.read_text() for path in ROOT.glob("egs/**/*.sh"))
    words = set(re.findall(r"\b([a-z_]+)=", shell))
    python = " ".join(
        path.read_text()
        for folder in ("egs", "pretrained_models", "src/data/prepare", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    return {f"--{word.replace('_', '-')}" for word in words} | set(re.findall(r'"(--[a-z-]+)"', python))


@pytest.fixture(scope="module")
def known() -> set[str]:
    configs = [import_module(f"flexiast.commands.{name}").CONFIG for name in COMMANDS]
    return OTHERS | of_scripts() | set().union(*map(options_of, configs))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_named_exist(page: Path, known: set[str]) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", page.read_text()))
    assert named <= known
