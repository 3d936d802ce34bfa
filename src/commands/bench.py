"""`flexiast bench`: what each patch size of a model costs on this machine, as a table, CSV, JSON and a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..classifier.latency import cache_file, measure_seconds, remember
from ..classifier.load import load
from ..errors import ConfigError, require
from ..export.job import needed
from ..models.geometry import PAPER_SIZES
from ..reports.bench import format_bench, plot_bench
from ..reports.tables import to_csv
from ..runtime.arguments import PatchArg, Precision, to_json
from ..runtime.device import pick_device, resolve_precision
from ..runtime.files import require_no_results, require_writable, to_json_text, write_atomically
from ..runtime.output import Outcome, OutputOptions
from ..runtime.provenance import provenance
from ..runtime.side_by_side import use_threads
from ..traintest.bench import Bench, measure_costs
from ..traintest.bench_onnx import onnx_costs

FILES = ("bench.csv", "bench.json", "bench.png", "bench-dark.png")


@dataclasses.dataclass(frozen=True)
class BenchConfig(OutputOptions):
    """Time a model at many patch sizes: clips per second, latency, tokens, GFLOPs and memory."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Model directory, or any other readable checkpoint."""
    out: Path | None = None
    """Directory for bench.csv, bench.json, bench.png and bench-dark.png (default: only print the table)."""
    overwrite: bool = False
    """Replace the results of an earlier run in that directory."""
    patch_sizes: tuple[PatchArg, ...] = PAPER_SIZES
    """Patch sizes to time."""
    batch_size: int = 8
    """Clips per forward pass when measuring clips per second; latency is always for one clip."""
    seconds: float = 2.0
    """How long each patch size is timed: once for clips per second, once for latency, once for time budgets."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16; `fp16` for GPUs without it."""
    device: str = "auto"
    """`auto`: the GPU if there is one, else the CPU."""
    threads: int = 0
    """CPU threads, 0 for torch's own choice."""
    compile: bool = False
    """Time the model frozen and compiled at each patch size (torch.compile; on a GPU with CUDA graphs, which help most
    with single clips and large patches). Compilation, once per size and batch size, is not timed."""
    onnx: bool = False
    """Also export these sizes and time ONNX Runtime on the CPU, float32 and int8 (extra `export`): about twice as long
    again."""
    heads: int | None = None
    """Attention heads, for state dicts that do not record them (default: width / 64)."""

    def __post_init__(self) -> None:
        if not self.patch_sizes:
            raise ConfigError("patch_sizes: found none, expected at least one")
        for name, least in (("batch_size", 1), ("seconds", 0), ("threads", 0)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected at least {least}")


def bench(config: BenchConfig) -> Bench:
    """Time, and write the three files if there is an `out`. Raises FlexiASTError for wrong input before any timing.

    Times from waveform to scores are kept for time budgets, unless the model is compiled, as `predict` does not do so.
    """
    if config.out is not None:
        require_no_results(config.out, FILES, config.overwrite)
    use_threads(config.threads)
    device = pick_device(config.device)
    if config.onnx:
        require(device.type == "cpu", "onnx", f"device {device}", "a CPU: --device cpu")
        needed("onnxruntime")
    model = load(config.checkpoint, device, config.heads)
    for patch in config.patch_sizes:
        model.config.grid(patch, model.feature_config.frames)
    if config.out is not None:
        require_writable(config.out)
    onnx = onnx_costs(model, config.patch_sizes, config.batch_size, config.seconds) if config.onnx else ()
    report = measure_costs(
        model, config.patch_sizes, config.batch_size, config.seconds, config.precision, config.compile
    )
    report = dataclasses.replace(report, onnx=onnx)
    if not config.compile:
        times = measure_seconds(model, config.patch_sizes, config.precision, config.seconds)
        remember(model, times, config.precision)
    if config.out is not None:
        rows = [dataclasses.asdict(cost) for cost in report.costs]
        precision = resolve_precision(device, config.precision)
        origin = {"command": to_json(config), "precision": precision, **provenance(device)}
        content = {"provenance": origin, **dataclasses.asdict(report)}
        write_atomically(config.out / "bench.csv", to_csv(rows).encode())
        write_atomically(config.out / "bench.json", (to_json_text(content, 1) + "\n").encode())
        plot_bench(report).write(config.out / "bench.png")
    return report


def run(config: BenchConfig) -> Outcome:
    """Time the model; the outcome has the table."""
    report = bench(config)
    fastest = max(report.costs, key=lambda cost: cost.clips_per_second)
    cached = {} if config.compile else {"times for budgets such as 20ms": str(cache_file())}
    return Outcome(
        written=config.out,
        text=format_bench(report),
        summary={"fastest": f"{fastest.clips_per_second:.0f} clips/s at patch size {fastest.patch_size}", **cached},
        results=dataclasses.asdict(report),
    )


CONFIG = BenchConfig
