"""`flexiast --install-completion` writes what the shell reads, and the shell then completes commands and options."""

import shutil
import subprocess
from pathlib import Path

import pytest

from flexiast.cli import COMMANDS, main

ASK = """
source "$1"
COMP_WORDS=(flexiast $2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="flexiast $2"; COMP_POINT=${#COMP_LINE}
function="$(complete -p flexiast | sed -E 's/.*-F ([^ ]+).*/\\1/')"
"$function" flexiast "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completions(script: Path, typed: str) -> set[str]:
    """What bash offers after this has been typed and the tab key pressed."""
    command = ["bash", "-c", ASK, "bash", str(script), typed]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.strip() for line in done.stdout.splitlines()}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/bash")
    assert main(["--install-completion"]) == 0
    script = tmp_path / ".local/share/bash-completion/completions/flexiast"
    assert capsys.readouterr().out == f"written: {script}; it works in new terminals\n"
    assert completions(script, "m") == {"measure"}
    assert completions(script, "do") == {"doctor"}
    assert "--data.train" in completions(script, "train --data.t")


@pytest.mark.parametrize(
    ("shell", "place"), [("zsh", ".zfunc/_flexiast"), ("fish", ".config/fish/completions/flexiast.fish")]
)
def test_other_shells_get_theirs(shell: str, place: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", shell]) == 0
    text = (tmp_path / place).read_text()
    assert all(name in text for name in COMMANDS)
    assert ("fpath" in capsys.readouterr().out) == (shell == "zsh")


@pytest.mark.parametrize("arguments", [["tcsh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["--install-completion", *arguments]) == 2
    assert f"found {' '.join(arguments)}, expected one of bash, zsh, fish" in capsys.readouterr().err
