"""What is printed of an outcome, and where."""

import json
from pathlib import Path

import pytest

from flexiast.runtime.output import Outcome, OutputOptions, duration, show

WRITTEN = Outcome(written=Path("out"), text="a table", summary={"clips": "3", "left out": ""}, results={"clips": 3})
PRINTED = Outcome(text="mean 1.0", summary={"clips": "3"}, results={"mean": float("nan")})
STREAMED = Outcome(summary={"files": "2"}, results={"files": 2}, streamed=True)
TABLE = "written  out\nclips    3\ntime     2 seconds\n"


@pytest.mark.parametrize(
    ("outcome", "options", "out", "err"),
    [
        (WRITTEN, {}, f"a table\n{TABLE}", ""),
        (WRITTEN, {"quiet": True}, "", ""),
        (PRINTED, {}, "mean 1.0\nclips  3\ntime   2 seconds\n", ""),
        (PRINTED, {"quiet": True}, "mean 1.0\n", ""),  # no file keeps it
        (STREAMED, {}, "", "files  2\ntime   2 seconds\n"),
        (STREAMED, {"json": True}, "", "files  2\ntime   2 seconds\n"),
        (STREAMED, {"json": True, "quiet": True}, "", ""),
        (Outcome(), {}, "", ""),  # nothing to say
    ],
)
def test_text_is_where_it_should_be(outcome: Outcome, options: dict, out: str, err: str, capsys) -> None:
    show(outcome, OutputOptions(**options), 2.0)
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize("quiet", [False, True])
def test_json_is_one_line_whatever_is_in_it(quiet: bool, capsys) -> None:
    show(WRITTEN, OutputOptions(json=True, quiet=quiet), 1.23456)
    show(PRINTED, OutputOptions(json=True, quiet=quiet))
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert (first, second) == ({"written": "out", "clips": 3, "seconds": 1.235}, {"mean": None})
    assert err == ""


def test_only_rank_0_prints(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("RANK", "1")
    show(WRITTEN, OutputOptions(), 1.0)
    show(WRITTEN, OutputOptions(json=True), 1.0)
    assert capsys.readouterr() == ("", "")


def test_a_name_cannot_steer_the_terminal(capsys) -> None:
    show(Outcome(written=Path("\x1b[2J\n")), OutputOptions())
    assert capsys.readouterr().out == "written  \\x1b[2J\\n\n"


def test_times_are_in_the_unit_people_use() -> None:
    told = {
        0.04: "0.1 seconds",
        1.5: "1.5 seconds",
        2: "2 seconds",
        89: "89 seconds",
        600: "10 minutes",
        7200: "2.0 hours",
    }
    assert {seconds: duration(seconds) for seconds in told} == told
