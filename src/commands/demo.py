"""`flexiast demo`: a web page on this machine that hears a sound at any patch size."""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Annotated

import tyro

from ..checkpoints.released import FOLDER
from ..classifier.load import load
from ..errors import ConfigError, require
from ..reports.listening import ListeningRoom
from ..runtime.extras import optional
from ..runtime.interruption import noted_signals
from ..runtime.output import Outcome, OutputOptions, show
from .demo_page import build, serve

logger = logging.getLogger(__name__)
SHIPPED = FOLDER / "demo_flexible"
EXAMPLE = FOLDER.parent / "notebooks" / "seven.wav"
"""A spoken word, in a clone; offered with the shipped model, which knows it."""
LONGEST, LARGEST = 3600.0, 1000.0


@dataclasses.dataclass(frozen=True)
class DemoConfig(OutputOptions):
    """Serve a web page on this machine: record or upload a sound, slide the patch size, see what changes."""

    checkpoint: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL]")] = None
    """Checkpoint of any readable format (default: pretrained_models/demo_flexible of the clone)."""
    port: int = 7860
    """Port to serve at; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to serve at. The default is this machine alone; 0.0.0.0 lets the whole network in, without a password."""
    max_seconds: float = 60.0
    """Longest sound, in seconds."""
    max_megabytes: float = 20.0
    """Largest file, in 10^6 bytes."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    open_browser: bool = False
    """Open the page in the browser of this machine."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        require(0 < self.max_seconds <= LONGEST, "max_seconds", self.max_seconds, f"above 0 to {LONGEST:g}")
        require(0 < self.max_megabytes <= LARGEST, "max_megabytes", self.max_megabytes, f"above 0 to {LARGEST:g}")


def chosen_checkpoint(given: Path | None, shipped: Path = SHIPPED) -> Path:
    """The checkpoint to show. Raises ConfigError if none is given and the shipped one is not there."""
    if given is not None:
        return given
    if not shipped.is_dir():
        raise ConfigError(
            f"checkpoint: found none, expected one: the default, {shipped.parent.name}/{shipped.name}, comes with a"
            " clone of the repository only"
        )
    return shipped


def free_port(host: str, port: int) -> int:
    """The port, or with 0 one that is free now. Raises ConfigError if it is taken, or the host is not this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port: found {host} port {port}, which cannot be served at ({error.strerror}), expected a free port:"
                " --port 0 takes one"
            ) from None
        return int(probe.getsockname()[1])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(config: DemoConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then what was uploaded is deleted."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gradio = optional("gradio", "web")
    source = chosen_checkpoint(config.checkpoint)
    port = free_port(config.host, config.port)
    room = ListeningRoom(load(source, config.device), config.max_seconds, config.max_megabytes)
    example = EXAMPLE if source == SHIPPED and EXAMPLE.is_file() else None
    if not is_loopback(config.host):
        logger.warning("%s: whoever reaches this machine over the network can use the page", config.host)
    with tempfile.TemporaryDirectory(prefix="flexiast-demo-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build(gradio, room, source.resolve().name, example)
        with noted_signals() as stopping:
            address = serve(gradio, page, config.host, port, config.max_megabytes, config.open_browser, example)
            show(Outcome(text=f"open {address} in a browser; Ctrl-C ends it", results={"address": address}), config)
            while not stopping:
                time.sleep(0.1)
            page.close(verbose=False)


CONFIG = DemoConfig
