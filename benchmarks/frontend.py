#!/usr/bin/env python3
"""Log-mel features of 10 s clips and of batches of short ones, on one thread.

LogMel against torchaudio.compliance.kaldi.fbank, clip by clip as its users call it, and against transformers'
ASTFeatureExtractor, which adds padding and normalisation, as FrontEnd does.

python benchmarks/frontend.py        writes benchmarks/results/frontend.json and prints the ratios
"""

from collections.abc import Sequence

import torch
from harness import Report, arguments, run
from torchaudio.compliance import kaldi
from transformers import ASTFeatureExtractor

from flexiast.features import FeatureConfig, FrontEnd, LogMel

RATE = 16_000


def torchaudio_fbank(clips: torch.Tensor) -> torch.Tensor:
    """Log-mel (B, T, 128) of clips (B, S), one after the other."""
    settings = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "num_mel_bins": 128, "dither": 0.0}
    return torch.stack([kaldi.fbank(clip[None], sample_frequency=RATE, **settings) for clip in clips])


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    report = Report("frontend", options, rounds=60, threads=1)
    torch.manual_seed(0)
    device, seconds = report.device, 1 if options.quick else 10
    clips = {
        f"one clip of {seconds} s": 0.1 * torch.randn(1, seconds * RATE),
        f"12 clips of {seconds} s": 0.1 * torch.randn(12, seconds * RATE),
        "32 clips of 1 s": 0.1 * torch.randn(32, RATE),
    }
    log_mel = LogMel().to(device)
    config = FeatureConfig(frames=100 * seconds)
    front_end, extractor = FrontEnd(config).to(device), ASTFeatureExtractor(max_length=config.frames)
    for group, batch in clips.items():
        shown = batch.to(device)
        # On a GPU sums are rounded in another order: where a mel bin is nearly empty that shows.
        report.agree(group, log_mel(shown), torchaudio_fbank(batch), within=1e-5 if device.type == "cpu" else 5e-3)
        contenders = {"torchaudio": lambda b=shown: torchaudio_fbank(b), "LogMel": lambda b=shown: log_mel(b)}
        rounds = report.rounds if len(batch) == 1 else max(2, report.rounds // 4)
        report.race(group, contenders, against="torchaudio", rounds=rounds)
    (group, batch), arrays = next(iter(clips.items())), next(iter(clips.values())).numpy()

    def extract() -> torch.Tensor:
        return extractor(list(arrays), sampling_rate=RATE, return_tensors="pt")["input_values"]

    report.agree("features, padded and normalised", front_end(batch.to(device)), extract(), within=1e-3)
    report.race(
        f"{group}, padded and normalised",
        {"ASTFeatureExtractor": extract, "FrontEnd": lambda: front_end(batch.to(device))},
        against="ASTFeatureExtractor",
    )
    report.finish()


if __name__ == "__main__":
    run(main)
