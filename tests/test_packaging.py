"""What is installed and from what: packages, dependencies, the tested versions, and the files that tools read."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flexiast

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DIRECT = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts] for name, texts in PROJECT["project"]["optional-dependencies"].items()
}


def lines(name: str) -> list[str]:
    """The lines of a requirements file, without comments."""
    stripped = (re.sub(r"(^| +)#.*", "", line).strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in stripped if line]


TESTED = {
    canonicalize_name(pinned.name): str(pinned.specifier).removeprefix("==")
    for pinned in map(Requirement, lines("constraints.txt"))
}


def test_every_package_is_installed_and_marked_as_typed() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    folders = [path.parent.relative_to(ROOT / "src").parts for path in (ROOT / "src").rglob("__init__.py")]
    assert sorted(setuptools["packages"]) == sorted(".".join(("flexiast", *parts)) for parts in folders)
    assert setuptools["package-data"] == {"flexiast": ["py.typed", "export/*.html", "reports/*.html"]}
    assert (ROOT / "src" / "py.typed").is_file()


def test_requirements_txt_names_what_the_library_needs() -> None:
    first, *names = lines("requirements.txt")
    assert first == "-c constraints.txt"
    assert sorted(names) == sorted(requirement.name for requirement in DIRECT)


@pytest.mark.parametrize("requirement", [*DIRECT, *(r for extra in EXTRAS.values() for r in extra)], ids=str)
def test_a_dependency_is_a_range_around_the_version_tested(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}
    assert requirement.specifier.contains(TESTED[canonicalize_name(requirement.name)])


def test_constraints_pin_all_that_the_direct_dependencies_need() -> None:
    needed = {
        canonicalize_name(needed.name)
        for requirement in DIRECT
        for needed in map(Requirement, requires(requirement.name) or ())
        if needed.marker is None or needed.marker.evaluate({"extra": ""})
    }
    assert needed - TESTED.keys() <= {"setuptools"}


def test_make_installs_the_extras_from_the_constraints() -> None:
    makefile = (ROOT / "Makefile").read_text()
    extras = re.search(r"^EXTRAS := (.+)$", makefile, re.MULTILINE)
    assert extras
    by_hand = {"mteb"}  # its dependencies outweigh all others; tests/classifier/test_mteb.py runs without it too
    assert sorted(extras[1].split(",")) == sorted(EXTRAS.keys() - by_hand)
    assert "--constraint constraints.txt --editable '.[$(EXTRAS)]'" in makefile
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    helped = re.findall(r'@echo "make ([a-z-]+) ', makefile)
    assert sorted([*helped, "help"]) == sorted(targets)


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what CFF 1.2.0 requires
    assert citation["version"] == flexiast.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Feng", "Erol", "Chung", "Senocak"]
    assert paper["identifiers"][0]["value"] == "arXiv:2307.09286"
