"""The page with a model: what it holds, and what it answers in a browser without a window."""

import functools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, sync_playwright

import flexiast
from flexiast.cli import main
from flexiast.data.manifest import Labels
from flexiast.errors import ConfigError
from flexiast.export import web
from flexiast.export.job import Exported
from flexiast.export.web import RUNTIME, export_page, runtime_files
from tests.commands.test_demo import browser_of
from tests.export.test_export import classifier

ROOT = Path(__file__).resolve().parents[2]
SEVEN, DEMO = ROOT / "notebooks" / "seven.wav", ROOT / "pretrained_models" / "demo_flexible"
NODE_MODULES = ROOT / "node_modules" / "onnxruntime-web"


def fake_runtime(folder: Path) -> Path:
    (folder / "package" / "dist").mkdir(parents=True)
    for name in RUNTIME:
        (folder / "package" / "dist" / name).write_text(name)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports whose file is their sizes, in no time."""

    def write(model, out, *format, patch_sizes) -> Exported:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(" ".join(map(str, patch_sizes)))
        return Exported(out, 0.0, "nothing")

    monkeypatch.setattr(web, "export", write)
    monkeypatch.setattr(web, "export_int8", lambda model, out, sizes: (write(model, out, patch_sizes=("8-bit",)), []))


def about(folder: Path) -> dict:
    text = (folder / "index.html").read_text()
    return json.loads(re.findall(r'<script type="application/json" id="about">(.*)</script>\n', text)[0])


def test_the_page_knows_the_model_and_lies_beside_what_it_loads(quick: None, tmp_path: Path) -> None:
    model, evil = classifier(), "</script><b>'\"&"
    model.labels = Labels(model.labels.mids, ("cat", evil, "rain", "Größe"))
    done = export_page(model, tmp_path / "page", [48, "16x24"], fake_runtime(tmp_path / "npm"))
    assert {path.name for path in done.path.iterdir()} == {"index.html", "model.onnx", *RUNTIME}
    assert (done.path / "model.onnx").read_text() == "48 16x24"
    assert (done.path / RUNTIME[2]).read_text() == RUNTIME[2]
    text = (done.path / "index.html").read_text()
    assert f'import("./{RUNTIME[0]}")' in text
    assert "\\n".join(RUNTIME) in text
    assert "<b>" not in text
    assert not re.findall(r"__[A-Z]+__|https?:", text)  # all is filled in, nothing is asked of the network
    features = model.feature_config
    assert about(done.path) == {
        "labels": ["cat", evil, "rain", "Größe"],
        "patch_sizes": ["48", "16x24"],
        "downmix": "mean",
        "sample_rate": 16_000,
        "window": 400,
        "hop": 160,
        "frames": 72,
        "samples": features.samples,
        "seconds": pytest.approx(0.72),
    }
    with pytest.raises(ConfigError, match="exists already"):
        export_page(model, tmp_path / "page")
    export_page(model, tmp_path / "page", overwrite=True, int8=True)
    assert (done.path / "model.onnx").read_text() == "8-bit"
    assert about(done.path)["patch_sizes"] == ["16"]


def test_a_runtime_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / RUNTIME[0]).touch()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"runtime: found no ort\.wasm\.min\.mjs, .* \(npm pack onnxruntime-web"):
            runtime_files(folder)
    fake_runtime(tmp_path / "npm")
    assert [path.name for path in runtime_files(tmp_path)] == list(RUNTIME)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--runtime x", "runtime: found x, expected it beside --format web only"),
        ("--format web --input spectrogram", "input: found spectrogram, expected waveform, which the page takes"),
        ("--format web --int8 --data x", "data: found x, expected it beside --int8 of --format onnx only"),
        ("--format web --runtime nowhere", "runtime: found no ort.wasm.min.mjs"),
    ],
)
def test_options_that_do_not_fit_the_page_are_refused(options: str, message: str, tmp_path: Path, capsys) -> None:
    assert main(["export", str(DEMO), "--out", str(tmp_path / "page"), *options.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_says_how_to_open_the_page_and_what_it_lacks(quick: None, tmp_path: Path, capsys) -> None:
    assert main(["export", str(DEMO), "--format", "web", "--out", str(tmp_path / "page"), "--patch-size", "8"]) == 0
    said = capsys.readouterr().out
    assert f"python -m http.server -d {tmp_path / 'page'}" in said
    assert "onnxruntime-web: npm pack onnxruntime-web && tar xf onnxruntime-web-*.tgz, then --runtime package" in said


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served as `python -m http.server` serves it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *message: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def page() -> Iterator[Page]:
    """An empty page of a browser whose microphone hears `seven`."""
    microphone = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(
            executable_path=browser_of(engine),
            args=["--no-sandbox", *microphone, f"--use-file-for-fake-audio-capture={SEVEN}"],
        )
        page = browser.new_page()
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def shown(page: Page) -> tuple[list[str], list[float]]:
    """Classes and scores in percent."""
    rows = page.locator("#answer tr")
    scores = rows.locator("td:last-child").all_inner_texts()
    return rows.locator("th").all_inner_texts(), [float(text.rstrip(" %")) for text in scores]


@pytest.mark.slow
def test_a_browser_hears_what_the_model_hears(page: Page, tmp_path: Path) -> None:
    if not NODE_MODULES.is_dir():
        pytest.skip(f"no {NODE_MODULES}: npm install --no-save onnxruntime-web")
    model, asked = flexiast.load(DEMO), list[str]()
    export_page(model, tmp_path / "page", [48, 32, 16], NODE_MODULES)
    samples, rate = soundfile.read(SEVEN, dtype="float32")
    long = tmp_path / "long.wav"  # two windows and more than a tenth of a third
    soundfile.write(long, np.concatenate([samples, samples[::-1], samples[:6000]]), rate, subtype="FLOAT")
    page.on("request", lambda request: asked.append(request.url))
    with served(tmp_path / "page") as address:
        page.goto(address)
        page.wait_for_selector("#state:has-text('Ready: 35 classes')")
        for sound, facts in ((SEVEN, "1.0 s of sound, 1 window,"), (long, "2.4 s of sound, 3 windows,")):
            page.set_input_files("#file", sound)
            for number, size in enumerate((48, 32, 16)):
                page.select_option("#size", str(number))
                page.wait_for_selector(f"#facts:has-text('patch size {size}, {facts}')")
                names, scores = shown(page)
                expected = model.predict(sound, size, top_k=5)
                assert sound == long or names[0] == "seven"
                assert names == [one.label for one in expected]
                assert scores == pytest.approx([100 * one.score for one in expected], abs=0.2)
        page.click("#record")
        page.wait_for_selector("#state:has-text('Recording')")
        page.wait_for_selector("#facts:has-text('1 window,')")
        assert len(shown(page)[0]) == 5
        (tmp_path / "broken.wav").write_bytes(b"no sound at all")
        page.set_input_files("#file", tmp_path / "broken.wav")
        page.wait_for_selector("[role=alert]:has-text('broken.wav: this browser cannot decode it')")
        assert shown(page) == ([], [])
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)


@pytest.mark.slow
def test_a_page_without_the_runtime_says_what_is_missing(quick: None, page: Page, tmp_path: Path) -> None:
    export_page(classifier(), tmp_path / "page")
    with served(tmp_path / "page") as address:
        page.goto(address)
        page.wait_for_selector(f"[role=alert]:has-text('onnxruntime-web is missing'):has-text('{RUNTIME[2]}')")
        assert page.is_disabled("#file")
