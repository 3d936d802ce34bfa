"""The commit that a result names."""

import subprocess
from pathlib import Path

from flexiast.runtime import provenance


def test_changes_of_the_source_are_marked_and_results_of_benchmarks_are_not(tmp_path: Path, monkeypatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    source, result = tmp_path / "src" / "runtime" / "provenance.py", tmp_path / "benchmarks" / "results" / "a.json"
    for file in (source, result):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    monkeypatch.setattr(provenance, "__file__", str(source))
    head = git("rev-parse", "HEAD")
    assert provenance.commit() == head
    result.write_text("after")
    assert provenance.commit() == head
    source.write_text("after")
    assert provenance.commit() == head + "+changes"
