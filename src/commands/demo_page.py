"""The page of `flexiast demo` in Gradio: what is on it, and what happens when something is moved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FlexiASTError
from ..reports.listening import ListeningRoom, Mode, Wish
from ..reports.listening_page import STYLE, answer_html, error_html, hint_html, pictures_html, table_html
from ..runtime.device import is_out_of_memory

MODES: dict[str, Mode] = {"Size": "size", "Time": "budget", "Cascade": "cascade"}
HINT = "Record or upload a sound; {}, spectrogram and costs appear here."
NO_CURVE = (
    "A time budget needs to know what each patch size gives, which this checkpoint does not say. Measure it once:"
    " flexiast curve CHECKPOINT --data VALIDATION"
)
Parts = tuple[str, str, str]
"""Answer, pictures and table, as HTML."""


def respond(
    room: ListeningRoom, path: str | None, mode: str, side: float, milliseconds: float, confidence: float
) -> Iterator[Parts]:
    """What the page shows for a sound and its controls; a mistake of the user's becomes a line in it.

    For a new sound the answer comes first, and the other sizes when they have heard it too.
    """
    if not path:
        yield hint_html(hint(room)), "", ""
        return
    wish = Wish(MODES[mode], int(side), float(milliseconds), float(confidence))
    if wish.mode == "budget" and room.curve is None:
        yield hint_html(NO_CURVE), "", ""
        return
    try:
        sound = room.read(path)
        heard = room.hear(sound, wish)
        sizes = heard.best.patch_sizes
        pictures = pictures_html(heard, room.model.feature_config.frame_seconds)
        for ladder in (True,) if room.knows(sound) else (False, True):
            rows = room.compare(sound, sizes, ladder)
            yield answer_html(sound, heard, rows), pictures, table_html(rows, heard)
    except FlexiASTError as error:
        yield error_html(error), "", ""
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        yield error_html("out of memory; larger patches and shorter clips need less"), "", ""


def hint(room: ListeningRoom) -> str:
    """What there is to do before a sound is there."""
    return HINT.format("its values" if room.numbers else "its classes")


def modes(room: ListeningRoom) -> list[str]:
    """What the patch size can be chosen by: numbers have no confidence that a cascade could go by."""
    return [name for name, mode in MODES.items() if mode != "cascade" or not room.numbers]


def build(gradio: Any, room: ListeningRoom, name: str, example: Path | None = None) -> Any:
    """The page, not yet served. name: of the model. example: a sound that a button offers."""
    gr = gradio
    sides = [size.freq for size in room.sizes]
    with gr.Blocks(analytics_enabled=False, title="FlexiAST", delete_cache=(600, 3600)) as page:
        gr.Markdown(_introduction(room, name))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                sound = gr.Audio(
                    label="Sound", sources=["upload", "microphone"], type="filepath", editable=False, buttons=[],
                    elem_id="sound",
                )  # fmt: skip
                offered = gr.Button(f"Try {example.name}", size="sm", elem_id="example") if example else None
                mode = gr.Radio(modes(room), value="Size", label="Choose by", elem_id="mode")
                side = gr.Slider(
                    sides[0], sides[-1], room.first_size, step=1, label="Patch size", elem_id="size",
                    info="Mel bins and frames; small patches are usually more accurate and cost more", buttons=[],
                )  # fmt: skip
                milliseconds = gr.Slider(
                    0.5, 500, 20, step=0.5, label="Time budget, ms", visible=False, elem_id="budget", buttons=[],
                    info="For each window of the sound, on this machine",
                )  # fmt: skip
                confidence = gr.Slider(
                    0, 1, 0.9, step=0.01, label="Confidence", visible=False, elem_id="confidence", buttons=[],
                    info="Below it, the next finer size hears the sound too",
                )  # fmt: skip
            with gr.Column(scale=3, min_width=300):
                answer = gr.HTML(hint_html(hint(room)), elem_id="answer")
                table = gr.HTML("", elem_id="table")
        pictures = gr.HTML("", elem_id="pictures")
        controls = [sound, mode, side, milliseconds, confidence]
        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        if offered:
            offered.click(lambda: str(example), None, sound, **quiet)
        mode.change(lambda chosen: _visible(gr, room, chosen), mode, [side, milliseconds, confidence], **quiet)
        gr.on(
            [control.change for control in controls], partial(respond, room), controls,
            [answer, pictures, table], trigger_mode="always_last", concurrency_limit=1, api_visibility="private",
            show_progress="minimal", show_progress_on=answer,
        )  # fmt: skip
    return page


def _introduction(room: ListeningRoom, name: str) -> str:
    features = room.model.feature_config
    several = len(room.model.labels) > 1
    what = f"target{'s' * several}" if room.numbers else "classes"
    return (
        f"# FlexiAST\nOne audio network at any patch size. Model `{name.replace('`', '')}`:"
        f" {len(room.model.labels):,} {what}, windows of {features.seconds:.3g} s. Sounds of up to"
        f" {room.max_seconds:g} s and {room.max_megabytes:g} MB; they stay on this machine and are deleted at the end."
    )


def _visible(gr: Any, room: ListeningRoom, chosen: str) -> list[Any]:
    """Which of the sliders belong to a mode."""
    mode = MODES[chosen]
    shown = (mode == "size", mode == "budget" and room.curve is not None, mode == "cascade" and room.curve is None)
    return [gr.update(visible=one) for one in shown]


def serve(
    gradio: Any, page: Any, host: str, port: int, max_megabytes: float, browser: bool, example: Path | None = None
) -> str:
    """Serve the page from threads of its own; returns its address. Raises ConfigError if the port is taken.

    Nothing goes out: no share link, no analytics, no fonts from elsewhere. Of files, it shows uploads and the example.
    """
    theme = gradio.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")  # fmt: skip
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, inbrowser=browser, prevent_thread_lock=True, quiet=True,
            show_error=False, max_file_size=int(max_megabytes * 1e6), footer_links=[], run_history=False,
            allowed_paths=[str(example)] if example else [], enable_monitoring=False, ssr_mode=False,
            mcp_server=False, pwa=False, theme=theme, css=STYLE,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"port: found {port}, which is taken ({error}), expected a free one: --port") from None
    return str(address)
