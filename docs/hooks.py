"""What MkDocs does besides rendering docs/: pages made from the code, and pages and pictures from other folders.

The pages of the command line are made of each command's own `--help`, so that they cannot differ from it. Files such as
CONTRIBUTING.md stay where readers of the repository look for them, and become pages; links to what is no page of the
site become plain names.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
FROM_ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/results/growth-dark.png": "growth-dark.png",
    "benchmarks/results/growth.png": "growth.png",
    "egs/ablations/RESULTS.md": "results-draws.md",
    "egs/demo/RESULTS.md": "results-demo.md",
    "pretrained_models/README.md": "pretrained-models.md",
}
"""Files of the repository, and where the site has them."""
COLUMNS = "112"
"""Width of the help that is read: wide enough for long names, too narrow for options side by side."""
_package: list[tempfile.TemporaryDirectory] = []


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: Any) -> Any:
    """Let mkdocstrings read this repository's package, whichever one is installed."""
    _package[:] = [tempfile.TemporaryDirectory()]
    folder = Path(_package[0].name)
    (folder / "flexiast").symlink_to(ROOT / "src")
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from flexiast.cli import COMMANDS

    for path, page in FROM_ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    for name, summary in COMMANDS.items():
        files.append(File.generated(config, f"commands/{name}.md", content=command_page(name, summary)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the list of commands, and send links where the site has what they name."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", command_table())
    here = page.file.src_uri
    source = next((path for path, made in FROM_ELSEWHERE.items() if made == here), f"docs/{here}")
    return re.sub(r"(!?)\[([^\]\[]*)\]\(([^)\s]+)\)", lambda match: link(match, source, here), markdown)


def link(match: re.Match[str], source: str, here: str) -> str:
    """A link for the site. source: the file that has it, in the repository; here: its page."""
    picture, text, target = match.groups()
    if re.match(r"\w+:|#", target):
        return match[0]
    path, _, anchor = target.partition("#")
    named = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if named in FROM_ELSEWHERE:
        place = FROM_ELSEWHERE[named]
    elif named == "README.md":
        place = "index.md"
    elif named.startswith("docs/"):
        place = named.removeprefix("docs/")
    else:
        return text if text.strip("`") == path.removeprefix("../") else f"{text} (`{named}`)"
    there = posixpath.relpath(place, posixpath.dirname(here) or ".")
    return f"{picture}[{text}]({there}{'#' + anchor if anchor else ''})"


def command_table() -> str:
    """Every command with what it does."""
    from flexiast.cli import COMMANDS

    rows = [f"| [`flexiast {name}`]({name}.md) | {summary} |" for name, summary in COMMANDS.items()]
    return "\n".join(["| Command | What it does |", "| --- | --- |", *rows])


def command_page(name: str, summary: str) -> str:
    """The page of one command: its help, as a list."""
    usage, sections = read_help(help_of(name))
    parts = [f"# flexiast {name}", f"{summary[0].upper()}{summary[1:]}.", f"    {usage}"]
    for title, intro, options in sections:
        parts += [f"## {title[0].upper()}{title[1:]}", intro]
        parts += [definition(option, text) for option, text in options if option != "-h, --help"]
    return "\n\n".join(part for part in parts if part)


def definition(option: str, text: str) -> str:
    """One option with what it means, its default last."""
    parts = re.fullmatch(r"(.*?)(?: ?\(default: ([^()]*)\))?( \(required\))?", text)
    assert parts
    text, default, required = parts.groups()
    text = text.replace("<", "&lt;").replace("*", "\\*")
    ending = " Required." if required else f" Default: `{default}`." if default else ""
    return f"`{option.replace('{None}|', '')}`\n:   {text}{ending}"


def help_of(name: str) -> str:
    """The text of `flexiast NAME --help`."""
    from flexiast.commands.command_line import read_arguments

    output, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            read_arguments(import_module(f"flexiast.commands.{name}").CONFIG, ["--help"], f"flexiast {name}")
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return output.getvalue()


Section = tuple[str, str, list[tuple[str, str]]]
"""Title, introduction, and options with their meanings."""


def read_help(text: str) -> tuple[str, list[Section]]:
    """The usage line and the sections of a help text, as tyro writes it where there are no box-drawing characters."""
    lines = [line.rstrip() for line in text.splitlines()]
    usage = lines[0].removeprefix("usage: ")
    starts = [i for i, line in enumerate(lines[:-1]) if re.match(r" \w", line) and re.match(r" -{9,}$", lines[i + 1])]
    sections: list[Section] = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        body, intro = lines[start + 2 : end], ""
        rule = next((i for i, line in enumerate(body) if re.match(r" *-{9,}$", line)), None)
        if rule is not None:
            intro, body = " ".join(line.strip() for line in body[:rule]), body[rule + 1 :]
        options: list[tuple[str, str]] = []
        for line in filter(str.strip, body):
            if re.match(r"  \S", line):
                option, _, meaning = line.strip().partition("  ")
                options.append((option, meaning.strip()))
            else:
                option, meaning = options[-1]
                options[-1] = option, f"{meaning} {line.strip()}".strip()
        sections.append((lines[start].strip(), intro, options))
    return usage, sections
