"""Runs a job of the tests on two processes over gloo; `python -m tests.traintest.two_ranks JOB ...` is one of them."""

import dataclasses
import gc
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def start(job: str, *arguments: str) -> list[subprocess.Popen]:
    """Start a job on two ranks, as torchrun would: through the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.traintest.two_ranks", job, *arguments],
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(ranks: list[subprocess.Popen]) -> list[str]:
    """What the ranks printed, once they have succeeded."""
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    for rank, (_, errors) in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, errors
    return [out for out, _ in outputs]


def train_lora(out: str, sounds: str, start: str) -> None:
    """Fine-tune a model with LoRA and a moving average."""
    from flexiast.runtime.distributed import connected
    from flexiast.traintest.train import Trainer
    from tests.traintest.test_distributed import lora

    with connected() as world:
        Trainer(lora(Path(sounds), Path(out), Path(start)), progress=False, world=world).run()
        world.barrier()


def train_native(out: str, sounds: str) -> None:
    """Train on clips of native length."""
    from flexiast.runtime.distributed import connected
    from flexiast.traintest.train import Trainer
    from tests.traintest.test_native import distributed

    with connected() as world:
        Trainer(distributed(Path(sounds), Path(out)), progress=False, world=world).run()
        world.barrier()


def train_and_evaluate(out: str, sounds: str) -> None:
    """Train, print the patch sizes this rank was told, then its metrics of seven clips."""
    from torch.nn.parallel import DistributedDataParallel

    from flexiast.runtime.distributed import connected
    from flexiast.traintest.reporter import named
    from flexiast.traintest.train import Trainer
    from tests.traintest.test_distributed import config, evaluate

    seen = []
    with connected() as world:
        trainer = Trainer(config(Path(sounds), Path(out)), progress=False, world=world)
        step = trainer.stepper.step

        def noted_step(inputs, patches, lr_factor):
            seen.append(named(patches))
            return step(inputs, patches, lr_factor)

        trainer.stepper.step = noted_step  # type: ignore[method-assign]
        trainer.run()
        world.any(False)  # the model is written by rank 0; rank 1 waits for it here
        results = evaluate(Path(out), Path(sounds), world)
    wrapped = sum(isinstance(one, DistributedDataParallel) for one in gc.get_objects())
    print(
        json.dumps(
            {"patches": seen, "wrapped": wrapped, "metrics": [vars(r.metrics) | {"loss": r.loss} for r in results]}
        )
    )


def train_with_validations(out: str, sounds: str, stop: str) -> None:
    """Train with three validations; with stop `yes`, rank 1 is signalled in the second. Print what is said then."""
    import signal

    from flexiast.runtime.distributed import connected
    from flexiast.runtime.interruption import Interrupted
    from flexiast.traintest import evaluate
    from flexiast.traintest.train import Trainer
    from tests.traintest.test_distributed import config

    load, calls = evaluate.load_windows, []
    with connected() as world:

        def signalled(*arguments, **options):
            calls.append(1)
            for number, batch in enumerate(load(*arguments, **options)):
                if (number, len(calls), world.rank, stop) == (1, 2, 1, "yes"):
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        evaluate.load_windows = signalled  # type: ignore[assignment]
        try:
            Trainer(config(Path(sounds), Path(out), eval_every=0.2), progress=False, world=world).run()
        except Interrupted as error:
            print(error)
        world.barrier()


def disagree(folder: str, sounds: str) -> None:
    """Start rank 1 otherwise in each of the ways below; print what each rank says, one line each.

    folder: holds for each rank a folder with its own `fewer`, `louder`, `teacher` and `scores.npz`.
    """
    from flexiast.commands.measure import MeasureConfig, _measure
    from flexiast.errors import ConfigError
    from flexiast.runtime.distributed import connected
    from flexiast.traintest import train
    from flexiast.traintest.options import DistillConfig, PatchOptions
    from tests.traintest.test_distributed import PATCHES, config

    with connected() as world:
        rank = world.rank
        os.chdir(Path(folder) / str(rank))
        run = config(Path(sounds), Path("out"))
        optim, data = run.optim, run.data
        ways = {
            "settings": {"optim": dataclasses.replace(optim, lr=optim.lr * (1 + rank))},
            "patches": {"patches": PatchOptions((PATCHES[rank],))},
            "code": {},
            "data": {"data": dataclasses.replace(data, train=Path("fewer"))},
            "contents": {"data": dataclasses.replace(data, train=Path("louder"))},
            "teacher": {"distill": DistillConfig(teacher="teacher")},
            "scores": {"distill": DistillConfig(scores=Path("scores.npz"))},
        }
        for way, changes in ways.items():
            train.commit = (lambda: f"code {rank}") if way == "code" else (lambda: "code")  # type: ignore[assignment]
            try:
                train.Trainer(dataclasses.replace(run, **changes), progress=False, world=world)
                print(f"{way}: agreed")
            except ConfigError as error:
                print(f"{way}: {error}")
        try:
            _measure(MeasureConfig(("teacher",), Path("louder"), Path("out"), device="cpu"), False, world)
        except ConfigError as error:
            print(f"measure: {error}")


def wait_for_the_silent(minutes: str) -> None:
    """Rank 0 says nothing; print what rank 1 says."""
    from flexiast.runtime.distributed import LostProcess, connected

    try:
        with connected(float(minutes)) as world:
            if world.rank == 0:
                time.sleep(8)
            else:
                world.broadcast(None)
    except LostProcess as error:
        print(error)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    jobs = (train_and_evaluate, train_lora, train_native, train_with_validations, disagree, wait_for_the_silent)
    {job.__name__: job for job in jobs}[sys.argv[1]](*sys.argv[2:])
