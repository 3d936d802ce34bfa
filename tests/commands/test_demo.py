"""`flexiast demo`: what the page says is what the model says; then the page itself, in a browser without a window."""

import base64
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from playwright.sync_api import Playwright, sync_playwright

import flexiast
from flexiast.classifier.latency import machine
from flexiast.cli import main
from flexiast.commands.demo import DemoConfig, chosen_checkpoint, free_port, is_loopback
from flexiast.commands.demo_page import NO_CURVE, build, hint, modes, respond, serve
from flexiast.errors import ConfigError, DataError
from flexiast.models.geometry import PatchSize, lay_out
from flexiast.reports.listening import ListeningRoom, Wish
from flexiast.reports.listening_page import answer_html, error_html, pictures_html, table_html
from flexiast.reports.listening_pictures import grid_lines

ROOT = Path(__file__).resolve().parents[2]
SEVEN, RATE = ROOT / "notebooks" / "seven.wav", 16_000


@pytest.fixture
def room() -> ListeningRoom:
    return ListeningRoom(flexiast.load(ROOT / "pretrained_models" / "demo_flexible"), max_seconds=5, max_megabytes=1)


def with_curve(room: ListeningRoom) -> ListeningRoom:
    """The same model with a curve of two sizes, timed for this machine, and a cascade of them."""

    def point(side: int, tokens: int, gflops: float, score: float) -> dict:
        known = {"temperature": 1.0, "ece_before": 0.1, "ece_after": 0.1}
        return {"patch_size": str(side), "tokens": tokens, "gflops": gflops, "score": score, **known}

    rule = {"sizes": ["48", "16"], "thresholds": [2.0], "temperatures": [1.0, 1.0], "average": True}
    room.model.metadata["curve"] = {
        "score_name": "accuracy",
        "clips": 70,
        "points": [point(16, 48, 0.05, 0.9), point(48, 6, 0.01, 0.8)],
        "cascades": [{"rule": rule, "reach": [1.0, 1.0], "gflops": 0.06, "score": 0.95}],
        "seconds": {machine(torch.device("cpu")): {"16": 0.02, "48": 0.005}},
    }
    return room


def of_numbers(room: ListeningRoom) -> ListeningRoom:
    """The same network as one that predicts a number in the place of each class: its logit, times 3 and 500 more."""
    targets = len(room.model.labels)
    room.model.loss = "mse"
    room.model.metadata["targets"] = {"mean": [500.0] * targets, "std": [3.0] * targets}
    return room


def shown(room: ListeningRoom, path: str | None, *controls: object) -> tuple[str, str, str]:
    """What the page shows in the end."""
    *_, parts = respond(room, path, *controls)
    return parts


def test_the_answer_and_the_table_are_what_predict_says(room: ListeningRoom) -> None:
    sound = room.read(SEVEN)
    heard = room.hear(sound, Wish("size", 31))
    assert heard.best == room.model.predict(SEVEN, 31)
    assert heard.best[0].label == "seven"
    rows = room.compare(sound, heard.best.patch_sizes)
    assert [row.patch_size.freq for row in rows] == [8, 12, 16, 24, 31, 32, 48]
    for row in rows:
        assert row.best == room.model.predict(SEVEN, row.patch_size, top_k=1)
        assert row.tokens == room.model.config.layout(row.patch_size).grid.tokens
        assert row.gflops == room.model.config.flops(row.patch_size) / 1e9
        assert 0 < row.milliseconds < 1e4
    table = table_html(rows, heard)
    assert table.count("<tr") == 8
    (marked,) = re.findall(r"<tr aria-current.*?</tr>", table)
    assert re.findall(r">([^<>]+)<", marked)[:2] == ["31", "20"]
    answer = answer_html(sound, heard, rows)
    assert "patch size 31 · 20 tokens · 0.023 GFLOPs · " in answer
    assert f"{100 * heard.best[0].score:.1f} %" in answer
    assert "seven.wav: 0.96 s, one window" in answer
    assert room.compare(sound)[0] is rows[0]  # nothing is heard or timed twice


def test_the_pictures_show_what_the_model_heard(room: ListeningRoom) -> None:
    heard = room.hear(room.read(SEVEN), Wish("size", 48))
    waveform = torch.from_numpy(soundfile.read(SEVEN, dtype="float32")[0])
    log_mel = room.model.front_end(waveform[None])
    assert torch.equal(heard.log_mel, log_mel[0])
    assert torch.equal(heard.attention, room.model.attention(log_mel, 48)[0])
    grid, attention = pictures_html(heard, 0.01).split("</figure>")[:2]
    across = sorted({float(x) for x in re.findall(r'<line x1="([\d.]+)" y1="\S+" x2="\1"', grid)})
    up = sorted({float(y) for y in re.findall(r'<line x1="\S+" y1="([\d.]+)" x2="\S+" y2="\1"', grid)})
    assert across == [46, 278, 510]  # 96 frames, and 48 of them, between the margins
    assert up == pytest.approx([8, 8 + 266 * 32 / 128, 8 + 266 * 80 / 128, 274], abs=0.1)  # `pad`: the last is cut off
    assert "<line" not in attention
    assert len(re.findall("<image", grid)) == 1
    assert len(re.findall("<image", attention)) == 2
    png = base64.b64decode(re.findall(r"base64,([^\"]+)", grid)[0])
    assert np.frombuffer(png[16:24], ">u4").tolist() == [96, 128]  # its width and height: a pixel for each value


def test_grid_lines_lie_where_patches_begin_and_end() -> None:
    dropped = lay_out(96, 128, PatchSize(40, 40))
    assert grid_lines(dropped, 96, 128) == ([0, 40, 80, 120], [0, 40, 80])
    padded = lay_out(96, 128, PatchSize(40, 40), coverage="pad")
    assert grid_lines(padded, 96, 128) == ([0, 40, 80, 120, 128], [0, 40, 80, 96])
    overlapping = lay_out(36, 26, PatchSize(16, 16), PatchSize(10, 10))
    assert grid_lines(overlapping, 36, 26) == ([0, 10, 26], [0, 10, 20, 36])


def test_a_long_clip_shows_its_clearest_window(room: ListeningRoom, tmp_path: Path) -> None:
    window = room.model.feature_config.frames * room.model.feature_config.hop
    word, noise = soundfile.read(SEVEN)[0][:window], 0.001 * np.random.default_rng(0).standard_normal(3 * window)
    noise[window : window + len(word)] += word
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    sound = room.read(tmp_path / "long.wav")
    heard = room.hear(sound, Wish("size", 16))
    assert heard.windows == 3
    assert heard.best == room.model.predict(tmp_path / "long.wav", 16)
    scores = [
        window.scores[room.model.labels.names.index(heard.best[0].label)]
        for window in room.model.predict_windows(tmp_path / "long.wav", 16)
    ]
    assert heard.start == pytest.approx(0.96 * int(np.argmax(scores)))
    text = answer_html(sound, heard, room.compare(sound))
    assert f"3 windows; the pictures show {heard.start:.2f} to {heard.end:.2f} s, where {heard.best[0].label}" in text


def test_numbers_are_shown_by_name_at_every_size(room: ListeningRoom) -> None:
    room = of_numbers(room)
    log_mel = room.model.front_end(torch.from_numpy(soundfile.read(SEVEN, dtype="float32")[0])[None])
    with torch.no_grad():
        values = {side: (3 * room.model(log_mel, side)[0] + 500).tolist() for side in (16, 48)}
    answer, pictures, table = shown(room, str(SEVEN), "Size", 16, 20, 0.9)
    names = room.model.labels.names
    assert re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", answer) == [
        (name, f"{value:.1f}") for name, value in zip(names, values[16], strict=True)
    ]
    assert "patch size 16 · 48 tokens · 0.049 GFLOPs" in answer
    heads = re.findall('<th scope="col">(.*?)</th>', table)
    assert heads == ["patch", "tokens", "GFLOPs", "ms", *names[:5]]
    coarse = re.findall("<td>(.*?)</td>", table[table.index('<th scope="row">48') :])
    assert coarse[3:] == [f"{value:.1f}" for value in values[48][:5]]
    assert "%" not in answer + table
    assert "for the answer" not in pictures
    assert modes(room) == ["Size", "Time"]
    assert "values" in shown(room, None, "Size", 16, 20, 0.9)[0]


def test_numbers_of_a_long_clip_are_shown_over_its_loudest_window(room: ListeningRoom, tmp_path: Path) -> None:
    window = room.model.feature_config.samples
    waveform = 0.001 * np.random.default_rng(0).standard_normal(3 * window)
    waveform[window : 2 * window] *= 50
    soundfile.write(tmp_path / "long.wav", waveform, RATE)
    room = of_numbers(room)
    sound = room.read(tmp_path / "long.wav")
    heard = room.hear(sound, Wish())
    assert heard.start == pytest.approx(0.96)
    assert heard.best == room.model.predict(tmp_path / "long.wav", 16)
    assert "the values are means over 3 windows; the pictures show 0.96 to 1.92 s, the loudest" in answer_html(
        sound, heard, room.compare(sound)
    )


def test_a_short_clip_leaves_its_padding_bare(room: ListeningRoom, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", soundfile.read(SEVEN)[0][:8000], RATE)
    heard = room.hear(room.read(tmp_path / "short.wav"), Wish())
    assert heard.sounding == room.model.feature_config.frame_count(8000) == 48
    assert heard.best == room.model.predict(tmp_path / "short.wav", 16)
    assert heard.log_mel[48:].numpy() == pytest.approx(room.model.feature_config.pad_value)
    assert heard.log_mel[:48].std() > 0.1


@pytest.mark.parametrize(("confidence", "sizes"), [(0.0, [48]), (1.0, [48, 24, 12])])
def test_without_a_curve_the_cascade_is_one_of_ours(room: ListeningRoom, confidence: float, sizes: list[int]) -> None:
    heard = room.hear(room.read(SEVEN), Wish("cascade", confidence=confidence))
    assert [size.freq for size in heard.best.patch_sizes] == sizes
    assert heard.best == room.model.predict(SEVEN, cascade=[48, 24, 12], threshold=confidence)
    assert "flexiast curve finds" in heard.notes[0]
    rows = room.compare(room.read(SEVEN), heard.best.patch_sizes)
    tokens = {48: 6, 24: 24, 12: 88}
    assert f"· {sum(tokens[size] for size in sizes)} tokens ·" in answer_html(room.read(SEVEN), heard, rows)


def test_a_curve_gives_budgets_and_cascades(room: ListeningRoom) -> None:
    room = with_curve(room)
    sound = room.read(SEVEN)
    for milliseconds, side in ((20, 16), (19, 48)):
        heard = room.hear(sound, Wish("budget", milliseconds=milliseconds))
        assert heard.best.patch_sizes == (PatchSize(side, side),)
        assert heard.best == room.model.predict(SEVEN, side)
        assert f"chosen: {side} (best for {milliseconds}ms" in heard.notes[0]
    cascade = room.hear(sound, Wish("cascade"))
    assert cascade.best == room.model.predict(SEVEN, cascade="auto")
    assert [size.freq for size in cascade.best.patch_sizes] == [48, 16]
    answer, pictures, table = shown(room, str(SEVEN), "Time", 16, 1, 0.9)
    assert "budget: found 1ms, which no size of the curve keeps" in answer
    assert not pictures + table


def test_a_size_outside_training_is_not_trusted(room: ListeningRoom) -> None:
    assert room.hear(room.read(SEVEN), Wish("size", 8)).notes == ()
    room.model.metadata["trained_patch_sizes"] = ["16"]
    (note,) = room.hear(room.read(SEVEN), Wish("size", 8)).notes
    assert note == "trained at 16: the scores at 8 are not to be trusted"


def test_mistakes_are_a_line_with_the_name_of_the_file_alone(room: ListeningRoom, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(6 * RATE), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "short.wav", 0.1 * rng.standard_normal(100), RATE)
    (tmp_path / "large.wav").write_bytes(bytes(1_200_000))
    (tmp_path / "<b>bad&.wav").write_bytes(b"no sound")
    expected = {
        "long.wav": "long.wav: found more than 5 s of sound, expected at most that",
        "silent.wav": "silent.wav: found digital silence (every sample is 0)",
        "short.wav": "short.wav: found 100 samples, expected at least one 25 ms window",
        "large.wav": "large.wav: found 1.2 MB, expected at most 1 MB",
        "<b>bad&.wav": "&lt;b&gt;bad&amp;.wav: ",
        "missing.wav": "missing.wav: ",
    }
    for name, message in expected.items():
        answer, pictures, table = shown(room, str(tmp_path / name), "Size", 16, 20, 0.9)
        assert 'role="alert"' in answer
        assert f">{message}" in answer
        assert str(tmp_path) not in answer
        assert "<b>" not in answer
        assert not pictures + table
    with pytest.raises(DataError, match=r"^silent.wav: "):
        room.read(tmp_path / "silent.wav")
    assert "\n" not in error_html("one\ntwo")


def test_the_page_answers_with_parts_or_says_what_to_do(room: ListeningRoom) -> None:
    assert hint(room) in shown(room, None, "Size", 16, 20, 0.9)[0]
    assert NO_CURVE in shown(room, str(SEVEN), "Time", 16, 20, 0.9)[0]
    answer, pictures, table = shown(room, str(SEVEN), "Size", 16.0, 20, 0.9)
    assert '<p class="fx-top">seven</p>' in answer
    assert pictures.count("<svg") == 2
    assert '<tr aria-current="true"><th scope="row">16</th>' in table


def test_a_new_sound_has_its_answer_before_the_other_sizes(room: ListeningRoom) -> None:
    first, second = respond(room, str(SEVEN), "Size", 16, 20, 0.9)
    assert first[:2] == second[:2]
    assert [parts[2].count('<th scope="row">') for parts in (first, second)] == [1, 6]
    assert len(list(respond(room, str(SEVEN), "Size", 20, 20, 0.9))) == 1


def test_names_of_classes_are_escaped(room: ListeningRoom) -> None:
    names = tuple(f"<i>{name}" for name in room.model.labels.names)
    room.model.labels = dataclasses.replace(room.model.labels, names=names)
    parts = "".join(shown(room, str(SEVEN), "Size", 16, 20, 0.9))
    assert "<i>" not in parts
    assert "&lt;i&gt;seven" in parts


def test_tabs_wait_for_each_other(room: ListeningRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, inside, most = room.read(SEVEN), [0], [0]
    predict = room.model.predict

    def slow(*args: object, **options: object) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        result = predict(*args, **options)
        inside[0] -= 1
        return result

    monkeypatch.setattr(room.model, "predict", slow)
    tabs = [threading.Thread(target=room.hear, args=(sound, Wish("size", side))) for side in (16, 24, 32, 48)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert most == [1]


def test_options_are_checked(tmp_path: Path) -> None:
    for field, value in (("port", 70_000), ("max_seconds", 0), ("max_megabytes", 1e9)):
        with pytest.raises(ConfigError, match=field):
            DemoConfig(**{field: value})
    assert DemoConfig().host == "127.0.0.1"
    assert chosen_checkpoint(tmp_path) == tmp_path
    with pytest.raises(
        ConfigError, match=r"^checkpoint: found none, expected one: .*demo_flexible, comes with a clone"
    ):
        chosen_checkpoint(None, tmp_path / "demo_flexible")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="expected a free port"):
        free_port("127.0.0.1", taken.getsockname()[1])
    assert free_port("127.0.0.1", 0) > 0
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0")] == [True, True, True, False]


def test_without_gradio_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--port", "0"]) == 2
    assert "expected the packages of the extra `web` (pip install '.[web]')" in capsys.readouterr().err


def test_nothing_is_shared_and_little_is_accepted() -> None:
    told: dict = {}
    theme = SimpleNamespace(set=lambda **_: "theme")
    gradio = SimpleNamespace(themes=SimpleNamespace(Default=lambda **_: theme))
    page = SimpleNamespace(launch=lambda **options: (told.update(options), "http://127.0.0.1:1/", ""))
    assert serve(gradio, page, "127.0.0.1", 1, 2.5, False) == "http://127.0.0.1:1/"
    assert (told["server_name"], told["max_file_size"], told["allowed_paths"]) == ("127.0.0.1", 2_500_000, [])
    assert [told[name] for name in ("share", "enable_monitoring", "inbrowser", "show_error")] == [False] * 4


@pytest.mark.slow
def test_the_page_is_built_without_analytics(room: ListeningRoom) -> None:
    gradio = pytest.importorskip("gradio")
    page = build(gradio, room, "model", SEVEN)
    assert page.analytics_enabled is False
    slider = next(one for one in page.blocks.values() if getattr(one, "elem_id", None) == "size")
    assert (slider.minimum, slider.maximum, slider.step, slider.value) == (8, 48, 1, 16)
    config = page.get_config_file()
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of its own, and what it must leave behind: nothing."""
    pytest.importorskip("gradio")
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flexiast.cli", "demo", "--port", "0", "--max-megabytes", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            yield re.findall(r"open (http://127\.0\.0\.1:\d+/)", line)[0]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
    assert not list(tmp_path.glob("flexiast-demo-*"))


def browser_of(engine: Playwright) -> str:
    """A Chromium of the system, or the one that `playwright install chromium` fetches; the test is skipped without."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), engine.chromium.executable_path)
    if not os.path.exists(found):
        pytest.skip(f"no browser: neither {', '.join(names)} nor {found}; playwright install chromium")
    return found


@pytest.mark.slow
def test_a_browser_gets_the_answer(address: str, tmp_path: Path) -> None:
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=browser_of(engine), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#answer .fx-hint")
        page.set_input_files("#sound input[type=file]", SEVEN)
        page.wait_for_selector("#answer .fx-facts:has-text('patch size 16')")
        assert page.inner_text("#answer .fx-top") == "seven"
        page.focus("#size input[type=range]")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#answer .fx-facts:has-text('patch size 17')")
        assert page.inner_text("#answer .fx-top") == "seven"
        assert page.inner_text("#table tr[aria-current] th") == "17"
        assert page.locator("#pictures .grid line").count() == (8 + 1) + (6 + 1)
        page.get_by_label("Cascade", exact=True).check()
        page.wait_for_selector("#answer .fx-facts:has-text('patch size 48')")
        (tmp_path / "broken.wav").write_bytes(b"no sound at all")
        page.click("#sound button[aria-label='Clear']")
        page.wait_for_selector("#answer .fx-hint")
        page.set_input_files("#sound input[type=file]", tmp_path / "broken.wav")
        page.wait_for_selector("#answer [role=alert]:has-text('broken.wav: ')")
        assert page.request.get(f"{address}gradio_api/file={ROOT / 'pyproject.toml'}").status == 403
        browser.close()
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
