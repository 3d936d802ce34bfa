"""Progress bars come from one place, which knows notebooks and says nothing of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
IN_A_NOTEBOOK = """
import sys, types
import IPython
sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
widgets = types.ModuleType("ipywidgets")
widgets.HTML = widgets.HBox = widgets.FloatProgress = object
sys.modules["ipywidgets"] = widgets if sys.argv[1] == "widgets" else None
from flexiast.runtime.bars import tqdm
print(tqdm.__module__)
"""


def test_no_other_module_takes_bars_from_elsewhere() -> None:
    users = {path.name for path in SRC.rglob("*.py") if re.search(r"from tqdm|^ *import tqdm", path.read_text(), re.M)}
    assert users == {"bars.py"}
    ours = [path for path in SRC.rglob("*.py") if "runtime.bars import tqdm" in path.read_text()]
    assert len(ours) > 10


@pytest.mark.parametrize(("has", "expected"), [("widgets", "tqdm.notebook"), ("none", "tqdm.std")])
def test_a_notebook_gets_widgets_where_it_can_show_them(has: str, expected: str) -> None:
    pytest.importorskip("IPython")
    command = [sys.executable, "-c", IN_A_NOTEBOOK, has]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (expected, "")
