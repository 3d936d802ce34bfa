"""The documentation site: what it links to and names exists, its commands parse, and its guides run in order."""

import ast
import csv
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

import flexiast
from flexiast.cli import COMMANDS, main
from flexiast.commands.command_line import read_arguments
from tests.scripts import script

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
PAGES = sorted(DOCS.rglob("*.md"))
GUIDES = (
    *(
        "README",
        "index",
        "your-sounds",
        "choosing-a-size",
        "distilling",
        "embeddings",
        "deployment",
        "clusters",
        "adding-a-data-set",
        "doctor",
        "demo",
    ),
    *("faq", "formats", "robustness", "commands/index", "api/index", "science", "performance", "results"),
)
"""Pages whose commands and Python run, by name."""


@cache
def hooks() -> ModuleType:
    return script(DOCS / "hooks.py")


def generated() -> set[str]:
    """Pages and pictures that the site has and docs/ has not."""
    return {*hooks().FROM_ELSEWHERE.values(), *(f"commands/{name}.md" for name in COMMANDS)}


def in_nav(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from in_nav(inner)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The code of a page, in order: the language of fenced code, "" for indented code, and the code."""
    fence: str | None = None
    code: list[str] = []
    for line in [*text.splitlines(), "end"]:
        if match := re.match(r" *```(\w*)$", line):
            if code:
                yield fence or "", "\n".join(code) + "\n"
            fence, code = (match[1] or "text") if fence is None else None, []
        elif fence is not None or line.startswith("    "):
            code.append(line)
        elif code:
            yield "", "\n".join(code) + "\n"
            code = []


def shell_lines(text: str) -> list[str]:
    """Command lines of a page, continuation lines joined, without comments."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in re.findall(r"^ {4,}(\S.*)$", joined, re.MULTILINE)]
    lines += [line.strip() for kind, block in blocks(joined) if kind == "sh" for line in block.splitlines()]
    return [
        line for line in lines if re.match(r"(\w+=\S+ )*(flexiast|torchrun|egs/\S+|until|arecord|python|mkdir) ", line)
    ]


def arguments(line: str) -> list[str] | None:
    """What a line gives to `flexiast`, or None if it does not call it."""
    match = re.search(r"\bflexiast(?:\.cli)? ([a-z].*?)(?:; do)?$", line)
    words = shlex.split(match[1], comments=True) if match else []
    return [word for word in words if word != "..."] if words and words[0] in COMMANDS else None


def test_the_navigation_lists_every_page_once() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES} | {p for p in generated() if p.endswith(".md")}
    listed = list(in_nav(SITE["nav"]))
    assert sorted(listed) == sorted(pages)


def test_nothing_is_asked_of_the_network() -> None:
    assert SITE["theme"]["font"] is False
    assert not [text for text in (ROOT / "mkdocs.yml", DOCS / "site.css") if "http" in text.read_text()]


def slug(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.stem)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        made = file.is_relative_to(DOCS) and file.relative_to(DOCS).as_posix() in generated()
        assert made or file.exists(), target
        if anchor and not anchor.startswith(("only-", "flexiast.")) and not made:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)), target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.stem)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp" / "fixed").mkdir(parents=True)
    (tmp_path / "exp" / "fixed" / "train_config.json").write_text('{"data": {"train": "sounds"}}')
    for line in shell_lines(page.read_text()):
        if words := arguments(line):
            if words[0] == "doctor" and words[1:]:
                (tmp_path / words[1]).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / words[1]).touch()  # it looks at once
            needs = ["--data.train", "x"] if words[0] in ("train", "flexify") and "..." in line else []
            read_arguments(import_module(f"flexiast.commands.{words[0]}").CONFIG, [*words[1:], *needs], "flexiast")


@cache
def known_options() -> set[str]:
    """Options of our commands, of the recipes and of other programs that are named."""
    helps = "".join(hooks().help_of(name) for name in COMMANDS)
    recipes = [*(ROOT / "egs").glob("*.sh"), ROOT / "src/data/prepare/options.py", ROOT / "tests/soak.py"]
    declared = set(re.findall(r"--[a-z][\w.-]*", helps + "".join(path.read_text() for path in recipes)))
    others = {"--shm-size", "--max-restarts", "--nodes", "--gpus-per-node", "--nproc-per-node"}
    return declared | others | {"--config", "--install-completion", "--help"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_options_named_in_the_text_exist(page: Path) -> None:
    named = {option.rstrip(".") for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", page.read_text())}
    assert named <= known_options()


def test_the_pages_of_commands_have_every_option() -> None:
    for name in COMMANDS:
        text = hooks().help_of(name)
        page = hooks().command_page(name, COMMANDS[name])
        options = set(re.findall(r"^ {2}(--[a-z][\w.-]*)", text, re.MULTILINE))
        assert options, name
        assert options == {line[1:].split()[0].strip(",`") for line in re.findall(r"^`--.*$", page, re.MULTILINE)}
        assert all(meaning for _, _, options_ in hooks().read_help(text)[1] for _, meaning in options_), name


def python_blocks(page: Path) -> list[str]:
    return [code for kind, code in blocks(page.read_text()) if kind == "python"]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.stem)
def test_python_is_fenced_so_that_it_is_run(page: Path) -> None:
    indented = "".join(code for kind, code in blocks(page.read_text()) if not kind)
    assert not re.findall(r"^ *(?:import \w|from \w+ import|\w+ = \w|model[.(]|print\().*", indented, re.MULTILINE)


@pytest.mark.parametrize(
    "page", [p for p in (*PAGES, ROOT / "README.md") if python_blocks(p)], ids=lambda path: path.stem
)
def test_python_names_exist(page: Path) -> None:
    for code in python_blocks(page):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flexiast"):
                module = import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), code
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                first = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert importlib.util.find_spec((first or "").split(".")[0]) is not None, code
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "flexiast":
                assert hasattr(flexiast, node.attr), code


def test_methods_of_the_model_exist() -> None:
    model = flexiast.load(ROOT / "pretrained_models" / "demo_flexible")
    for page in PAGES:
        named = set(re.findall(r"\bmodel\.(\w+)\(", page.read_text()))
        assert all(hasattr(model, name) for name in named), page


def test_the_drawing_of_how_it_works_can_be_made_again() -> None:
    module = script(DOCS / "how_it_works.py")
    model = flexiast.load(ROOT / "pretrained_models" / "demo_flexible")
    made = module.drawing(model, module.SOUND)
    kept = (DOCS / "how-it-works.png").read_bytes(), (DOCS / "how-it-works-dark.png").read_bytes()
    sizes = [tuple(image[16:24]) for image in (made.light, made.dark, *kept)]  # width and height in a PNG's header
    assert len(set(sizes)) == 1
    assert {model.predict(module.SOUND, size)[0].label for size in module.SIZES} == {"seven"}


# The guides, in miniature -----------------------------------------------------------------------------------------

SHORTER = (
    (r"(flexiast(?:\.cli)? (?:train|flexify))\b", r"\1 --epochs 1"),
    (r"MIT/ast-finetuned-audioset-10-10-0.4593", "exp/hub"),
    (r"--nproc-per-node 4", "--nproc-per-node 2"),
    (r"(budget[ =]\"?)20ms", r"\g<1>10s"),
    (r"(flexiast bench .*)", r"\1 --seconds 0.05"),
    (r"(flexiast report \S+)", r"\1 --seconds 0.05 --clips 1"),
    (r"(flexiast demo)", r"\1 --port 0"),
    (r" \.\.\.", " --data.train sounds"),
)
"""What makes a command small: fewer epochs, a small model in place of the Hub's, fewer processes, shorter timings,
time enough on a busy machine, any free port; and the data where a guide leaves them out."""
GIVEN = {
    "choosing-a-size": {"exp/model": "exp/fixed"},
    "distilling": {"exp/fixed": "exp/fixed"},
    "deployment": {"exp/flexible": "exp/flexible"},
    "demo": {"exp/flexible": "exp/flexible"},
    "doctor": {"exp/flexible": "exp/flexible", "exp/hub": "exp/fixed"},
    "embeddings": {"exp/flexible": "exp/flexible"},
    "faq": {"exp/fixed": "exp/fixed", "exp/flexible": "exp/flexible"},
    "formats": {"exp/flexible": "exp/flexible"},
    "performance": {"exp/flexible": "exp/flexible"},
    "commands/index": {"exp/fixed": "exp/fixed"},
    "results": {"exp/fixed": "exp/fixed", "exp/draws/default/seed0": "exp/flexible"}
    | {f"exp/draws/specialists/{size}/seed0": "exp/flexible" for size in (8, 16, 32)},
    "your-sounds": {"exp/hub": "exp/fixed"},
    "README": {"exp/hub": "exp/fixed"},
}
"""Models that a guide takes for granted, by the guide's name for each: which of ours it is."""
NOT_RUN = r"arecord|.*--nnodes|.*/shared/|.*--runtime package|.*http\.server|flexiast .*(s3|gs|https)://"
"""A microphone, several machines, a package of npm, a server that does not end, data elsewhere (`test_remote.py`)."""


def tone(name: str, rng: np.random.Generator, seconds: float) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    pitch = {"dog": 400, "rain": 1500}.get(name, 0) * rng.uniform(0.9, 1.1)
    return (0.3 * np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.03, len(time))).astype(np.float32)


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the guides speak of: sounds, tables, a fixed and a flexible run."""
    here, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    for name in ("dog", "rain", "noise"):
        (here / "sounds" / name).mkdir(parents=True)
        for number in range(12):
            soundfile.write(here / "sounds" / name / f"{number}.wav", tone(name, rng, 0.7), 16_000)
    soundfile.write(here / "clip.wav", tone("dog", rng, 0.7), 16_000)
    for long in ("hour.flac", "recording.wav"):
        soundfile.write(here / long, np.concatenate([tone(n, rng, 2) for n in ("noise", "dog", "noise")]), 16_000)
    for folder in ("recordings", "clips"):
        shutil.copytree(here / "sounds", here / folder)
    (here / "data").mkdir()
    names = [(f"sounds/{n}/{i}.wav", n, i) for n in ("dog", "rain", "noise") for i in range(12)]
    for split, numbers in {"train": range(8), "val": (8, 9), "test": (10, 11)}.items():
        write_table(here / f"{split}.csv", ("path", "label"), [(p, n) for p, n, i in names if i in numbers])
        shutil.copy(here / f"{split}.csv", here / "data")
    write_table(here / "esc50.csv", ("filename", "fold", "category"), [(p, i % 5 + 1, n) for p, n, i in names])
    heights = [(p, f"{rng.uniform(-40, 0):.1f}", 100 + number) for number, (p, _, _) in enumerate(names)]
    write_table(here / "tones.csv", ("file", "loudness", "pitch"), heights)
    for name in ("egs", "pretrained_models", "notebooks", "measure_flexibility.py"):
        (here / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pretrained_models" / "demo_flexible" / "model.safetensors", here)
    shutil.copy(ROOT / "pretrained_models" / "demo_flexible" / "config.json", here)
    before = Path.cwd()
    os.chdir(here)
    try:
        small = ["--data.train", "sounds", "--epochs", "1"]
        assert main(["train", "--out", "exp/fixed", *small]) == 0
        assert main(["flexify", "exp/fixed", "--out", "exp/flexible", *small]) == 0
    finally:
        os.chdir(before)
    return here


def shortened(code: str) -> str:
    for pattern, shorter in SHORTER:
        code = re.sub(pattern, shorter, code)
    return code


def run_line(line: str) -> None:
    """Run a command line of a guide, those of `flexiast` in this process."""
    words = arguments(line := shortened(line))
    if words and words[0] == "demo":
        visit(words)
    elif words and line.startswith("flexiast "):
        assert main(words) in ((0, 1) if words[0] == "doctor" else (0,)), line
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            ["bash", "-ec", line], env=environment, capture_output=True, text=True, check=False, timeout=90
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def visit(words: list[str]) -> None:
    """Serve the page of `flexiast demo`, look at it, and stop it, as a reader does."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "flexiast.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            (address,) = re.findall(r"open (http://127\.0\.0\.1:\d+/)", server.stdout.readline())
            with urllib.request.urlopen(address, timeout=60) as page:
                assert b"gradio" in page.read()
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs(guide: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    shutil.copytree(world, here, symlinks=True, ignore=shutil.ignore_patterns("exp"))
    for name, ours in GIVEN.get(guide, {}).items():
        shutil.copytree(world / ours, here / name)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    names: dict[str, Any] = {}
    ran = 0
    for kind, code in blocks(((ROOT if guide == "README" else DOCS) / f"{guide}.md").read_text()):
        if kind == "python":
            exec(compile(shortened(code), guide, "exec"), names)
            ran += 1
        elif kind == "sh":
            run_line(code)
            ran += 1
        elif kind == "toml":
            Path("options.toml").write_text(code)
            assert main(["train", "--config", "options.toml", "--epochs", "1"]) == 0
        elif not kind:
            for line in shell_lines(code):
                if not re.match(NOT_RUN, line):
                    run_line(line)
                    ran += 1
    assert ran, guide


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_asks_no_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for page in in_nav(SITE["nav"]):
        html = (tmp_path / "site" / page).with_suffix(".html").read_text()
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*', html), page
        assert not re.findall(r'<link[^>]* href="(?:https?:)?//[^"]*', html), page
