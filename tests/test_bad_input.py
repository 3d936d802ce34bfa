"""Every user's mistake gets one line that names it, and exit code 2: the commands, and the line of each.

The commands run in this process, as typed; only the shell scripts are processes of their own. `{name}` in a command is
a file or folder made below (its name there is `name`), `{out}` a folder that does not exist.
"""

import json
import logging
import os
import pickle
import re
import runpy
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import flexiast
from flexiast.cli import main, measure_main
from flexiast.commands.command_line import in_one_line
from flexiast.commands.guard import guarded
from flexiast.data.manifest import Labels
from tests.layouts import prepare_script, write_esc50, write_speechcommands
from tests.sounds import CLASSES

ROOT = Path(__file__).resolve().parent.parent

TRAIN = "flexiast train --out {out} --data.workers 0 --model.size micro --features.frames 96 --log none"
ON = f"{TRAIN} --data.train {{train}}"
LISTED = f"{TRAIN} --data.labels {{labels.csv}} --data.train"
WITH = f"{TRAIN} --data.train {{good.json}} --data.labels"
RESUME = "flexiast train --out {run} --data.workers 0 --log none --model.size micro --features.frames 96"
PREDICT = "flexiast predict {model}"
MEASURE = "measure_flexibility.py {model} --workers 0 --out {out}"

# What is typed, and what the line says. -------------------------------------------------------------------------

MANIFESTS = {
    f"{LISTED} nowhere.json": "nowhere.json: not readable as a manifest (No such file or folder)",
    f"{LISTED} {{malformed.json}}": "malformed.json: not readable as a manifest (Expecting value",
    f"{LISTED} {{empty.json}}": "empty.json: not readable as a manifest (Expecting value: line 1 column 1",
    f"{LISTED} {{no_data.json}}": 'no_data.json: expected {"data": [{"wav": path, "labels": "id,id"}, ...]}',
    f"{LISTED} {{no_clips.json}}": "no_clips.json: expected {",
    f"{LISTED} {{list.json}}": "list.json: expected {",
    f"{LISTED} {{number.json}}": "data[0]: found {'wav': 7, 'labels': 'a'}, expected the text fields wav and labels",
    f"{LISTED} {{no_label.json}}": "data[1]: found {'wav': 'x.wav'}, expected the text fields wav and labels",
    f"{LISTED} {{unknown.json}}": "data[0]: unknown label 'purple', expected one of the 6 in the label table",
    f"{LISTED} {{nul.json}}": r"data[0]: found wav 'a\x00b.wav', which no file can be called",
    f"{LISTED} {{half.json}}": r"data[0]: found wav '\ud800.wav', which no file can be called",
    f"{LISTED} {{several.json}} --loss ce": "has 2 labels, expected 1 with loss ce",
    f"{LISTED} {{latin1.json}}": "latin1.json: not readable as a manifest ('utf-8' codec can't decode byte 0xe9",
    f"{LISTED} {{deep.json}}": "deep.json: not readable as a manifest (maximum recursion depth exceeded",
    f"{TRAIN} --data.train {{good.json}}": "good.json: a manifest needs a label table (CSV with index, mid, display_",
    f"{TRAIN} --data.train {{columns.csv}}": "columns.csv: found columns ['voice', 'kind'], expected one of files",
    f"{TRAIN} --data.train {{cells.csv}}": "cells.csv, line 2: found 3 cells, expected 2; several labels",
    f"{TRAIN} --data.train {{blank.csv}}": "blank.csv, line 3: found path '', expected the name of a file",
    f"{TRAIN} --data.train {{no_rows.csv}}": "no_rows.csv: found no clips, expected at least one line below the header",
    f"{TRAIN} --data.train {{quotes.csv}}": "quotes.csv: not readable as a manifest (unexpected end of data)",
    f"{TRAIN} --data.train {{no_classes}}": "no_classes: found no sub-folders, expected one per class with audio files",
    f"{LISTED} {{gone.json}}": "none of the 1 files in it is there (the first would be",
    f"{TRAIN} --data.train {{silent}}": "silent: found no audio files in its sub-folders (1 .txt)",
    f"{ON} --data.labels {{labels.csv}}": "high_down: unknown label 'high_down', expected one of the 6 in the label",
    f"{ON} --data.val {{other}}": "unknown label 'meow', expected one of the 6",
    f"{TRAIN} --data.train {{shards}}": "index.json: found format 'other', expected 'flexiast-shards-1'",
    f"{TRAIN} --data.train {{tar_elsewhere}}": "shards[0].file: found '../secret.tar', expected the name of a .tar",
}
LABELS = {
    f"{WITH} no.csv": "no.csv: not readable as a label table (No such file or directory)",
    f"{WITH} {{clip}}": "0.wav: not readable as a label table ('utf-8' codec can't decode",
    f"{WITH} {{no_mid.csv}}": "no_mid.csv: found columns ['index', 'display_name'], expected index, mid, display_name",
    f"{WITH} {{empty.csv}}": "empty.csv: found columns None, expected index, mid, display_name",
    f"{WITH} {{only_header.csv}}": "only_header.csv: found indices [], expected at least one line below the header",
    f"{WITH} {{twice.csv}}": "twice.csv, line 3: found {'index': '0', 'mid': 'b', 'display_name': 'B'}, expected a new",
    f"{WITH} {{gap.csv}}": "gap.csv: found indices [0, 2]..., expected 0 to 1 once each",
    f"{WITH} {{word.csv}}": "word.csv, line 2: found {'index': 'one'",
    f"{WITH} {{huge.csv}}": "huge.csv, line 2: found {'index': '9999",
    f"{WITH} {{same.csv}}": "same.csv: labels: found 2 ids, 1 distinct",
    f"{WITH} {{latin1.csv}}": "latin1.csv: not readable as a label table ('utf-8' codec can't decode byte 0xe9",
}
PATCHES = {
    f"{PREDICT} {{clip}} --patch-size 0": "patch size: found '0', expected positive whole numbers as 16, (16, 32) or",
    f"{PREDICT} {{clip}} --patch-size=-1": "patch size: found '-1', expected positive whole numbers",
    f"{PREDICT} {{clip}} --patch-size large": "patch size: found 'large', expected positive whole numbers",
    f"{PREDICT} {{clip}} --patch-size 16x": "patch size: found '16x', expected positive whole numbers",
    f"{PREDICT} {{clip}} --patch-size 16x16x16": "patch size: found '16x16x16', expected positive whole numbers",
    f"{PREDICT} {{clip}} --patch-size 1.5": "patch size: found '1.5', expected positive whole numbers",
    f"{PREDICT} {{clip}} --patch-size {'9' * 5000}": "9999, expected positive whole numbers",
    f"{PREDICT} {{clip}} --patch-size 16x97": "patch size 16x97 (bins x frames) is larger than the input, 128 x 96",
    f"{PREDICT} {{clip}} --patch-size 129x1": "patch size 129x1 (bins x frames) is larger than the input, 128 x 96",
    f"{ON} --patches.sizes 16 128": "patch size 128x128 (bins x frames) is larger than the input, 128 x 96",
    f"{ON} --patches.sizes 16 32 16": "patches.sizes: found ['16', '32', '16'], expected one or more distinct sizes",
    f"{ON} --eval-patch-sizes 200": "patch size 200x200 (bins x frames) is larger than the input",
    f"{ON} --eval-patch-sizes 16 16": "eval_patch_sizes: found 16, 16, expected distinct sizes",
    f"{ON} --patches.sizes 16 32 --patches.weights 1": "patches.weights: found [1.0], expected 2 positive numbers",
    f"{ON} --patches.sizes 16 32 --patches.weights 1 -1": "patches.weights: found [1.0, -1.0], expected 2 positive",
    f"{ON} --patches.sizes 16 32 --patches.weights 1 nan": "patches.weights: found [1.0, nan], expected 2 positive",
    f"{ON} --patches.dropout 1": "patches.dropout: found 1.0, expected a share from 0 to below 1",
    f"{ON} --patches.weights 1 2": "patches.weights: found [1.0, 2.0], expected 1 positive numbers",
    f"{ON} --patches.weights heavy": "Error parsing --patches.weights: Could not find valid parse for arguments: ['he",
    f"{ON} --model.patch-size 200": "patch size 200x200 (bins x frames) is larger than the input, 128 x 96",
    f"{MEASURE} --data {{train}} --patch-sizes 16 500": "patch size 500x500 (bins x frames) is larger than the input",
    f"{MEASURE} --data {{train}} --patch-sizes 16 8 16": "patch_sizes: found 16, 8, 16, expected distinct sizes",
}
FEATURES = {
    f"{TRAIN} --data.train {{train}} --features.frames 0": "features.frames: found 0, expected a whole number from 1",
    f"{TRAIN} --data.train {{train}} --features.frames 1000000000": "features.frames: found 1000000000, expected a who",
    f"{ON} --data.mean nan": "data.mean: found nan, expected a finite number",
    f"{ON} --data.mean loud": "Error parsing --data.mean",
    f"{ON} --data.std 0": "data.std: found 0.0, expected a positive number",
    f"{ON} --data.std=-1": "data.std: found -1.0, expected a positive number",
    f"{ON} --data.std inf": "data.std: found inf, expected a positive number",
    f"{ON} --data.std nan": "data.std: found nan, expected a positive number",
    f"{ON} --data.mean auto --data.std 4": "data.mean, data.std: found None, 4.0, expected both, or none",
    "flexiast stats {train} --bins 0": "features.bins: found 0, expected a whole number from 1 to 1024",
    "flexiast stats {train} --bins 3": "log-mel: found sample rate 16000 Hz and 3 bins, expected at least 80 Hz and 4",
    "flexiast stats {train} --sample-rate 1000000": "features.sample_rate: found 1000000, expected a whole number from",
    "flexiast stats {train} --workers -1": "workers: found -1, expected 0 to 256",
    "flexiast stats nowhere": "nowhere: not readable as a manifest (No such file or folder)",
    "flexiast stats {train} --out {clip}/x.json": "0.wav is not writable (File exists)",
}
SETTINGS = {
    **{
        f"{ON} --optim.{name} {value}": f"optim.{name.replace('-', '_')}: found {float(value)}, expected a positive"
        for name, value in zip(
            ("lr", "lr", "muon-lr", "step-every", "step-factor"), ("nan", "inf", "nan", "0", "-1"), strict=True
        )
    },
    **{
        f"{ON} --optim.{name} {value}": f"optim.{name.replace('-', '_')}: found {float(value)}, expected 0 or more"
        for name, value in zip(
            ("weight-decay", "clip-norm", "step-from", "step-from"), ("nan", "inf", "nan", "-1"), strict=True
        )
    },
    f"{ON} --optim.warmup-steps -1": "optim.warmup_steps: found -1, expected 0 or more",
    f"{ON} --optim.betas 0.9 1": "optim.betas: found (0.9, 1.0), expected two numbers from 0 to below 1",
    f"{ON} --optim.betas nan 0.9": "optim.betas: found (nan, 0.9), expected two numbers from 0 to below 1",
    f"{ON} --optim.betas 0.9": "Missing value for argument '--optim.betas'. Expected 2 values.",
    f"{ON} --augment.noise nan": "augment.noise: found nan, expected 0 or more",
    f"{ON} --augment.mixup 2": "augment.mixup: found 2.0, expected a share from 0 to 1",
    f"{ON} --augment.roll -3": "augment.roll: found -3, expected 0 or more",
    f"{ON} --epochs 0": "epochs: found 0.0, expected a positive number",
    f"{ON} --epochs nan": "epochs: found nan, expected a positive number",
    f"{ON} --epochs inf": "epochs: found inf, expected a positive number",
    f"{ON} --features.bins few": "Error parsing --features.bins: found 'few'; expected --features.bins INT Mel bins",
    f"{ON} --epochs many": "Error parsing --epochs: could not convert string to float: 'many'; expected --epochs FLOAT",
    f"{ON} --eval-every 0": "eval_every: found 0.0, expected a positive number",
    f"{ON} --epochs 20 --eval-every 1e-9": "eval_every: found 1e-09, expected at most 1000000 validations in 20",
    f"{ON} --seed -1": "seed: found -1, expected 0 or more",
    f"{ON} --seed {10**30}": f"seed: found {10**30}, expected 0 or more",
    f"{ON} --label-smoothing 1": "label_smoothing: found 1.0, expected a share from 0 to below 1",
    f"{ON} --label-smoothing nan": "label_smoothing: found nan, expected a share from 0 to below 1",
    f"{ON} --average-from nan": "average_from: found nan, expected 0 or more",
    f"{ON} --save-every 0": "save_every: found 0, expected at least 1",
    f"{ON} --save-every-minutes nan": "save_every_minutes: found nan, expected a positive number",
    f"{ON} --keep-checkpoints 0": "keep_checkpoints: found 0, expected at least 1",
    f"{ON} --token-budget -1": "token_budget: found -1, expected 0 or more",
    f"{ON} --micro-batch -1": "micro_batch: found -1, expected 0 or more",
    f"{ON} --threads 1000000": "threads: found 1000000, expected 0 to 1024",
    f"{ON} --data.batch-size 0": "data.batch_size: found 0, expected 1 to 1048576",
    f"{ON} --data.workers -1": "data.workers: found -1, expected 0 to 256",
    f"{ON} --data.timeout 0": "data.timeout: found 0.0, expected a positive number of seconds",
    f"{ON} --data.timeout inf": "data.timeout: found inf, expected a positive number of seconds",
    f"{ON} --data.max-bad 1.5": "data.max_bad: found 1.5, expected a share from 0 to 1",
    f"{ON} --data.max-bad nan": "data.max_bad: found nan, expected a share from 0 to 1",
    f"{ON} --data.batch-size 1 --augment.mixup 0.5": "data.batch_size: found 1 for 1 processes, expected at least 2",
    f"{ON} --distill.temperature 2": "distill.temperature: found 2.0, expected nothing without distill.teacher",
    f"{ON} --distill.patch-size 16": "distill.patch_size: found 16, expected nothing without distill.teacher",
    f"{ON} --distill.teacher {{model}} --distill.temperature 0": "distill.temperature: found 0.0, expected a positive",
    f"{ON} --distill.teacher {{model}} --distill.label-weight nan": "distill.label_weight: found nan, expected a share",
    f"{ON} --distill.teacher nobody": "nobody: no such file or directory",
    f"{ON} --distill.teacher {{released}}": "flexiast_vit_tiny.pth has 10 classes, not among them",
    f"{ON} --loss mae": "invalid choice 'mae' for argument '--loss'. Expected one of ('auto', 'ce', 'bce', 'mse').",
    f"{ON} --device quantum": "device: found 'quantum', which is not usable here (Expected one of cpu, cuda",
    f"{ON} --device meta": "device: found 'meta', which is not usable here",
    f"{ON} --log wandb": "log: found wandb, which is not installed; expected `pip install wandb` first",
    f"{ON} --data.trian x": "Unrecognized options: --data.trian, x",
    "flexiast train --out {out}": "Missing from flexiast train: --data.train PATH Manifest JSON",
    "flexiast flexify {model} --out {out} --data.train {train} --data.val 0": "data.val: found none, expected data",
    "flexiast teach": "found command 'teach', expected one of train, flexify",
    "flexiast": "found no command, expected one of train, flexify",
}
CHECKPOINTS = {
    "flexiast predict nowhere {clip}": "nowhere: no such file or directory, expected a checkpoint: a file, or a dir",
    "flexiast predict {truncated} {clip}": "model.safetensors: not readable as a checkpoint (",
    "flexiast predict {no_weights} {clip}": "model.safetensors: not readable as a checkpoint (",
    "flexiast predict {no_sidecar} {clip}": "config.json: not readable as a model description (",
    "flexiast predict {weights_alone.safetensors} {clip}": "its description is missing: give the directory that also",
    "flexiast predict {shape} {clip}": "tensor head.bias has shape (9,), expected (6,)",
    "flexiast predict {missing} {clip}": "model.safetensors: 1 tensors are missing (norm.bias)",
    "flexiast predict {extra} {clip}": "model.safetensors: 1 tensors are unexplained (foreign)",
    "flexiast predict {not_json} {clip}": "config.json: not readable as a model description (Expecting property name",
    "flexiast predict {a_list} {clip}": "config.json: found list, expected a model description (an object)",
    "flexiast predict {version} {clip}": "config.json: found format 'flexiast-9', expected 'flexiast-1'",
    "flexiast predict {depth} {clip}": "config.json: found 900000 blocks, but only",
    "flexiast predict {width} {clip}": "has shape (16, 16, 16), expected (960000, 16, 16)",
    "flexiast predict {classes} {clip}": "tensor head.weight has shape (6, 16), expected (1000000, 16)",
    "flexiast predict {too_wide} {clip}": "model.width: found 1000000000000, expected a whole number from 1 to 1,000,0",
    "flexiast predict {nan} {clip}": "model.mlp_ratio: found nan, expected a finite number above 0",
    "flexiast predict {frames} {clip}": "features.frames: found 1000000000000, expected a whole number from 1 to 10",
    "flexiast predict {rate} {clip}": "features.sample_rate: found 1000000000000, expected a whole number from 1 to 38",
    "flexiast predict {std} {clip}": "features.std: found 0, expected a positive number",
    "flexiast predict {bins} {clip}": "classifier: found 6 labels and 64 mel bins, expected the network's 6 and 128",
    "flexiast predict {labels} {clip}": "its description is not valid (classifier: found 1 labels",
    "flexiast predict {text.pth} {clip}": "text.pth: not readable as a checkpoint (found text, expected",
    "flexiast predict {empty.pth} {clip}": "empty.pth: not readable as a checkpoint (found an empty",
    "flexiast predict {cut.pth} {clip}": "cut.pth: not readable as a checkpoint (",
    "flexiast predict {payload.pth} {clip}": "payload.pth: not readable as a checkpoint (unsupported GLOBAL posix.",
    "flexiast predict {number.pth} {clip}": "number.pth: found int, expected a state dict (names to tensors)",
    "flexiast predict {other.pth} {clip}": "other.pth: found 1 tensors (conv.weight), of no known format; nearest is",
    "flexiast predict {expanded.pth} {clip}": "its tensors would take 4000000000000 bytes, expected at most twice",
    "flexiast predict {clip} {clip}": "0.wav: not readable as a checkpoint (found audio, expected weights",
    "flexiast convert {labels.csv} {out}": "labels.csv: not readable as a checkpoint (found text, expected weights in",
    "flexiast convert {model.onnx} {out}": "model.onnx: not readable as a checkpoint (found an export, which is not",
    "flexiast predict {model}s {clip}": "models: no such file or directory, expected a checkpoint: a file, or a",
    "flexiast predict {root}/modle {clip}": "; near it: {root}/model",
    "flexiast predict {text.pth}x {clip}": "text.pthx: no such file or directory",
    "flexiast predict ast_audioset_16_61 {clip}": "; near it: ast_audioset_16_16",
    "flexiast predict runs/best.pth {clip}": "runs/best.pth: no such file or directory, expected a checkpoint",
    "flexiast train --out {out} --data.train {train} --model.new-head": "model.new_head: found True, expected it ",
    f"{ON} --model.init {{model}}": "model.size: found micro, expected nothing beside model.init",
    "flexiast train --out {out} --data.train {train} --model.init {truncated}": "not readable as a checkpoint (",
    "flexiast train --out {out} --data.train {train} --model.init timm:no_such_model": "timm knows no such model",
    "flexiast convert nowhere {out}": "nowhere: no such file or directory",
    "flexiast convert {model} {train}": "train: exists already, expected a new name, or --overwrite",
    "flexiast convert {released} {out} --heads 7": "model.heads: found 7, expected a divisor of the width 64",
    "flexiast convert {released} {out} --heads -1": "model.heads: found -1, expected a whole number from 1",
    "flexiast export {model} --out {out}/m.txt": "m.txt, expected a file name that ends in .onnx",
    "flexiast export {model} --out {clip}/m.onnx": "m.onnx: not writable (",
    "flexiast export {model} --out {train} --format hf": "train: exists already, expected a new name, or --overwrite",
    "flexiast export {model} --out {out}/m.onnx --patch-size 200": "patch size 200x200 (bins x frames) is larger than",
    "flexiast export {model} --out {out}/m.onnx --format tflite": "invalid choice 'tflite' for argument '--format'",
    "flexiast export {model} --out {out} --format hf --input spectrogram": "input: found 'spectrogram', a transformers",
}
AUDIO = {
    f"{PREDICT} gone.wav": "gone.wav: not readable as audio (no such file)",
    f"{PREDICT} {{text.wav}}": "text.wav: not readable as audio (",
    f"{PREDICT} {{zero.wav}}": "zero.wav: found 0 samples, expected at least one 25 ms window",
    f"{PREDICT} {{short.wav}}": "short.wav: found 300 samples, expected at least one 25 ms window, 400",
    f"{PREDICT} {{nan.wav}}": "nan.wav: found NaN or infinite samples, expected finite ones",
    f"{PREDICT} {{raw.raw}}": "raw.raw: not readable as audio (",
    f"{PREDICT} {{pipe.wav}}": "pipe.wav: not readable as audio (no regular file)",
    f"{PREDICT} /dev/zero": "/dev/zero: not readable as audio (no regular file)",
    f"{PREDICT} {{silent}}": "silent: found no audio files in it or below (only other ones: 1 .txt)",
    f"{PREDICT} 'none/*.wav'": "none/*.wav: found no file that matches this pattern",
    f"{PREDICT}": "audio: found no files, expected at least one file, folder, pattern or manifest",
    f"{PREDICT} {{clip}} --out r.txt": "out: found r.txt, expected a file name that ends in .csv or .json",
    f"{PREDICT} {{clip}} --out {{taken.csv}}": "taken.csv: exists already, expected a new name, or --overwrite",
    f"{PREDICT} {{rate.wav}}": "rate.wav: found a sample rate of 3000000 Hz, expected 1 to 384000",
    f"{PREDICT} {{channels.wav}}": "channels.wav: found 1000 channels, expected 1 to 64",
    f"{PREDICT} {{clip}} --top-k 0": "top_k: found 0, expected a whole number of at least 1",
    f"{PREDICT} {{clip}} --hop 0": "hop: found 0.0, expected seconds above 0, at most the window of 0.96 s",
    f"{PREDICT} {{clip}} --hop nan": "hop: found nan, expected seconds above 0",
    f"{PREDICT} {{clip}} --aggregate median": "invalid choice 'median' for argument '--aggregate'",
    "flexiast predict": "Missing from flexiast predict: MODEL Checkpoint of any readable format",
}
MEASUREMENTS = {
    f"{MEASURE} --data {{good.json}} --labels {{labels.csv}}": "labels: model model has other classes (6) than",
    f"{MEASURE} --data nowhere": "nowhere: not readable as a manifest (No such file or folder)",
    f"{MEASURE} --data {{train}} --batch-size 0": "batch_size, workers: found 0, 0, expected at least 1 and 0",
    f"{MEASURE} --data {{train}} --device cuda:99": "device: found 'cuda:99', which is not usable here (",
    f"{MEASURE} --data {{train}} --resize cubic": "invalid choice 'cubic' for argument '--resize'",
    "measure_flexibility.py {model} --data {train} --out {clip}/x": "x is not writable (Not a directory)",
    "measure_flexibility.py {model} {model} --data {train} --out {out}": "checkpoints: found one given twice in",
    "measure_flexibility.py {model}": "Missing from measure_flexibility.py: --data PATH",
    "flexiast measure {model} nowhere --data {train} --out {out}": "nowhere: no such file or directory",
    "flexiast pack {good.json} {out}": "good.json: a manifest needs a label table",
    "flexiast pack {train} {out} --shard-size nan": "shard_size: found nan, expected a positive number of megabytes",
    "flexiast pack {train} {shards}": "index.json: exists already, expected another folder, or --overwrite",
    "flexiast bench {model} --patch-sizes 300": "patch size 300x300 (bins x frames) is larger than the input",
    "flexiast bench {model} --seconds nan": "seconds: found nan, expected at least 0",
}
RUNS = {
    f"{ON.replace('{out}', '{clip}/run')}": "run is not writable (Not a directory)",
    f"{ON.replace('{out}', '{model}')}": "already holds a model but no training state; choose another folder",
    f"{RESUME} --data.train {{train}} --epochs 3": "with other settings (epochs: 0.1 -> 3.0); repeat its settings",
    f"{RESUME} --data.train {{train}} --epochs 0.1 --seed 5": "with other settings (seed: 0 -> 5; the data: ",
    f"{RESUME} --data.train {{other}} --epochs 0.1": "{other} or its validation data have changed",
    f"{ON.replace('{out}', '{foreign_run}')}": "the newest state lacks config, data, log_bytes, model",
}
SCRIPTS = {
    "egs/esc50/prepare.py nowhere {out}": "nowhere: no such folder, expected one that holds meta/esc50.csv",
    "egs/esc50/prepare.py {train} {out}": "train: found no meta/esc50.csv, expected it there or up to two",
    "egs/esc50/prepare.py {bad_esc50} {out}": "esc50.csv, line 2: found {'filename': '1.wav'",
    "egs/esc50/prepare.py {esc50} {out} --fold 9": "argument --fold: invalid choice: 9 (choose from 1, 2, 3, 4, 5)",
    "egs/esc50/prepare.py {esc50} {out} --val-share x": "argument --val-share: invalid float value: 'x'; see --help",
    "egs/esc50/prepare.py {esc50}": "found 1 folders, expected DATA_DIR OUT_DIR",
    "egs/speechcommands/prepare.py {train} {out}": "found no validation_list.txt, expected it there or up to two",
    "egs/audioset/prepare.py {train} {out} --set all": "argument --set: invalid choice: 'all'",
    "egs/vggsound/prepare.py {train} {out}": "found no vggsound.csv, expected it there or up to two folders below",
    "egs/voxceleb/prepare.py {train} {out} --check thoroughly": "argument --check: invalid choice: 'thoroughly'",
    "egs/average.py {train}": "train: found no fold*/flexibility/flexibility.csv",
    "egs/average.py {folds}": "flexibility.csv: found no column model, resize, patch_freq",
    "egs/esc50/run16.sh --preset best --data x": "--preset: found best, expected one of published modern",
    "egs/esc50/run16.sh --colour red": "unknown option --colour; see --help",
    "egs/esc50/run16.sh --epochs": "option --epochs needs a value",
    "egs/esc50/run16.sh --stage two --data x": "--stage: found two, expected a number",
    "egs/baseline.sh cifar 16 --data x": "no recipe for data set cifar",
    "egs/demo/run.sh now": "unexpected argument now; see --help",
    "egs/speechcommands/flexify.sh --method magic --data x": "--method: found magic, expected one of supervised",
}
AT_ONCE = MANIFESTS | LABELS | PATCHES | FEATURES | SETTINGS | CHECKPOINTS | AUDIO | MEASUREMENTS | RUNS | SCRIPTS

# Mistakes that come to light at work: what the work says of itself comes before the line.
AT_WORK = {
    f"{ON.replace('{out}', '{damaged_run}')}": "step-00000001.pt: not readable as a training state (",
    f"{ON.replace('{out}', '{flipped_run}')} --epochs 0.1": "is damaged); remove them to start anew",
    f"{MEASURE} --data {{broken}} --patch-sizes 16": "broken: found no usable clip; the first: ",
    "flexiast stats {broken} --workers 0": "0.wav: not readable as audio",
    f"{ON} --optim.lr 1e30 --optim.warmup-steps 0 --epochs 2": "weights have diverged; training it at a lower rate may",
    "egs/speechcommands/prepare.py {words} {out}": "3 of 36 clips have no usable file: ",
    "egs/esc50/prepare.py {esc50} {out} --val-share 1.5": "val share: found 1.5, expected 0 to below 1",
}


# The files ------------------------------------------------------------------------------------------------------

HEADER = "index,mid,display_name\n"
TEXTS = {
    "malformed.json": '{"data": [',
    "empty.json": "",
    "no_data.json": '{"clips": []}',
    "no_clips.json": '{"data": []}',
    "list.json": "[]",
    "number.json": '{"data": [{"wav": 7, "labels": "a"}]}',
    "no_label.json": '{"data": [{"wav": "x.wav", "labels": "a"}, {"wav": "x.wav"}]}',
    "unknown.json": '{"data": [{"wav": "CLIP", "labels": "purple"}]}',
    "nul.json": '{"data": [{"wav": "a\\u0000b.wav", "labels": "a"}]}',
    "half.json": '{"data": [{"wav": "\\ud800.wav", "labels": "a"}]}',
    "several.json": '{"data": [{"wav": "CLIP", "labels": "a,b"}]}',
    "latin1.json": '{"data": [{"wav": "café.wav", "labels": "a"}]}'.encode("latin1"),
    "deep.json": '{"data": ' + "[" * 100_000,
    "good.json": '\ufeff{"data": [{"wav": "CLIP", "labels": "a"}]}',  # with a byte order mark, as Windows writes it
    "gone.json": '{"data": [{"wav": "gone.wav", "labels": "a"}]}',
    "columns.csv": "voice,kind\nx,a\n",
    "cells.csv": "path,label\nx.wav,a,b\n",
    "blank.csv": "path,label\nx.wav,a\n,a\n",
    "no_rows.csv": "path,label\n",
    "quotes.csv": 'path,label\n"x.wav,a\n',
    "labels.csv": "\ufeff" + HEADER + "".join(f"{i},{mid},{mid.upper()}\n" for i, mid in enumerate("abcdef")),
    "no_mid.csv": "index,display_name\n0,A\n",
    "empty.csv": "",
    "only_header.csv": HEADER,
    "twice.csv": HEADER + "0,a,A\n0,b,B\n",
    "gap.csv": HEADER + "0,a,A\n2,b,B\n",
    "word.csv": HEADER + "one,a,A\n",
    "huge.csv": HEADER + f"{'9' * 5000},a,A\n",
    "same.csv": HEADER + "0,a,A\n1,a,B\n",
    "latin1.csv": (HEADER + "0,a,café\n").encode("latin1"),
    "text.pth": "no weights",
    "empty.pth": "",
    "model.onnx": "\x08\x0a\x12",
    "text.wav": "no sound",
    "raw.raw": "no header",
    "shards/index.json": '{"format": "other"}',
    "tar_elsewhere/index.json": json.dumps(
        {
            "format": "flexiast-shards-1",
            "labels": {"mids": ["a"], "names": ["a"]},
            "shards": [{"file": "../secret.tar", "bytes": 1}],
        }
    ),
    "no_classes/readme.txt": "",
    "silent/a/readme.txt": "",
    "taken.csv": "mine",
    "broken/high_up/0.wav": "no sound",
    "bad_esc50/meta/esc50.csv": "filename,fold,target,category,src_file\n1.wav,6,0,dog,1\n",
    "folds/fold1/flexibility/flexibility.csv": "accuracy\n0.5\n",
}


def _sidecar(edit: Callable[[dict], object]) -> Callable[[Path], object]:
    def damage(directory: Path) -> None:
        content = json.loads((directory / "config.json").read_text())
        edit(content)
        (directory / "config.json").write_text(json.dumps(content))

    return damage


def _weights(edit: Callable[[dict], object]) -> Callable[[Path], object]:
    def damage(directory: Path) -> None:
        state = load_file(directory / "model.safetensors")
        edit(state)
        save_file(state, directory / "model.safetensors")

    return damage


DAMAGED_MODELS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda d: os.truncate(d / "model.safetensors", 5000),
    "no_weights": lambda d: (d / "model.safetensors").unlink(),
    "no_sidecar": lambda d: (d / "config.json").unlink(),
    "not_json": lambda d: (d / "config.json").write_text("{model: micro}"),
    "a_list": lambda d: (d / "config.json").write_text("[]"),
    "shape": _weights(lambda state: state.update({"head.bias": torch.zeros(9)})),
    "missing": _weights(lambda state: state.pop("norm.bias")),
    "extra": _weights(lambda state: state.update(foreign=torch.zeros(1))),
    "version": _sidecar(lambda s: s.update(format="flexiast-9")),
    "depth": _sidecar(lambda s: s["model"].update(depth=900_000)),
    "width": _sidecar(lambda s: s["model"].update(width=960_000)),
    "classes": _sidecar(lambda s: s["model"].update(classes=1_000_000)),
    "too_wide": _sidecar(lambda s: s["model"].update(width=10**12)),
    "nan": _sidecar(lambda s: s["model"].update(mlp_ratio=float("nan"))),
    "frames": _sidecar(lambda s: s["features"].update(frames=10**12)),
    "rate": _sidecar(lambda s: s["features"].update(sample_rate=10**12)),
    "std": _sidecar(lambda s: s["features"].update(std=0)),
    "bins": _sidecar(lambda s: s["features"].update(bins=64)),
    "labels": _sidecar(lambda s: s.update(labels={"mids": ["a"], "names": ["A"]})),
}


class Payload:
    """Runs a command when unpickled by a careless reader."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("false",)


def write_models(root: Path) -> None:
    """A model that has learnt nothing, its damaged copies, and files that are no models."""
    torch.manual_seed(0)
    names = tuple(sorted(CLASSES))
    network = flexiast.FlexiASTConfig(classes=6, frames=96, width=16, depth=1, heads=2)
    model = flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=96), Labels(names, names))
    model.save_pretrained(root / "model")
    shutil.copy(root / "model" / "model.safetensors", root / "weights_alone.safetensors")
    for name, damage in DAMAGED_MODELS.items():
        damage(Path(shutil.copytree(root / "model", root / name)))
    torch.save({"conv.weight": torch.zeros(3)}, root / "other.pth")
    torch.save({"head.weight": torch.zeros(1).expand(10**6, 10**6)}, root / "expanded.pth")
    torch.save(7, root / "number.pth")
    (root / "cut.pth").write_bytes((root / "other.pth").read_bytes()[:200])
    (root / "payload.pth").write_bytes(pickle.dumps(Payload(), protocol=2))


def write_sounds(root: Path, clip: Path) -> None:
    """Audio files with one thing wrong each, and a folder whose classes are others."""
    for name, samples in (("zero", 0), ("short", 300)):
        soundfile.write(root / f"{name}.wav", np.zeros(samples), 16_000)
    soundfile.write(root / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    os.mkfifo(root / "pipe.wav")
    content = bytearray(clip.read_bytes())
    # Of the header: channels, samples and bytes a second, bytes of one sample of all channels, bits.
    content[20:36] = struct.pack("<HHIIHH", 1, 1, 3_000_000, 6_000_000, 2, 16)
    (root / "rate.wav").write_bytes(content)
    content[20:36] = struct.pack("<HHIIHH", 1, 1000, 16_000, 32_000_000, 2000, 16)
    (root / "channels.wav").write_bytes(content)
    (root / "other" / "meow").mkdir(parents=True)
    (root / "other" / "purr").mkdir()
    shutil.copy(clip, root / "other" / "meow")
    shutil.copy(clip, root / "other" / "purr")


def write_runs(root: Path, train: Path) -> None:
    """A training run of one step, and runs whose states are damaged."""
    command = RESUME.format(run=root / "run") + f" --data.train {train} --epochs 0.1"
    assert main(shlex.split(command)[1:]) == 0
    (state,) = (root / "run" / "checkpoints").glob("step-*1.pt")
    content = bytearray(state.read_bytes())
    for name in ("damaged_run", "flipped_run", "foreign_run"):
        (root / name / "checkpoints").mkdir(parents=True)
    (root / "damaged_run" / "checkpoints" / state.name).write_bytes(content[:1000])
    content[len(content) // 2] ^= 1
    (root / "flipped_run" / "checkpoints" / state.name).write_bytes(content)
    torch.save({"step": 1}, root / "foreign_run" / "checkpoints" / state.name)


@pytest.fixture(scope="module")
def places(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """What a name in braces stands for."""
    root = tmp_path_factory.mktemp("bad")
    clip = sounds / "train" / "low_up" / "0.wav"
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.replace("CLIP", str(clip)).encode())
    write_models(root)
    write_sounds(root, clip)
    write_runs(root, sounds / "train")
    write_esc50(root / "esc50", per_fold=1)
    write_speechcommands(root / "words", broken=True)
    known = {
        "root": root,
        "clip": clip,
        "train": sounds / "train",
        "released": ROOT / "tests" / "golden" / "flexiast_vit_tiny.pth",
    }

    def place(name: str) -> str:
        path = known.get(name, root / name)
        assert path.exists(), name
        return str(path)

    return place


# The test -------------------------------------------------------------------------------------------------------


def run(command: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command as a shell would find it; returns the exit code."""
    program, *arguments = command
    if program.endswith(".sh"):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run([ROOT / program, *arguments], env=os.environ | {"PATH": path}, stderr=subprocess.PIPE)
        sys.stderr.write(done.stderr.decode())
        return done.returncode
    entry = {"flexiast": main, "measure_flexibility.py": measure_main}.get(program)
    try:
        if entry is None:
            if program.endswith("prepare.py"):
                return prepare_script(program.split("/")[1]).main(arguments)
            monkeypatch.setattr(sys, "argv", command)
            runpy.run_path(str(ROOT / program), run_name="__main__")
        return entry(arguments)
    except SystemExit as exit_:
        return exit_.code


def shown(command: str) -> str:
    return command if len(command) < 150 else command[:150] + "..."


def run_and_read(command: str, place, tmp_path: Path, monkeypatch, capsys) -> tuple[int, Iterator[str], str]:
    """Exit code, what was said on stderr, and what the command was."""
    monkeypatch.chdir(tmp_path)
    filled = re.sub(r"\{([\w.]+)\}", lambda m: str(tmp_path / "out") if m[1] == "out" else place(m[1]), command)
    capsys.readouterr()
    monkeypatch.setattr(logging.getLogger("flexiast"), "handlers", [])  # an earlier command's, on a closed stream
    code = run(shlex.split(filled), monkeypatch)
    lines = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()
    return code, [line for line in lines if "%|" not in line and line.strip()]  # bars, on a machine with other work


@pytest.mark.parametrize("command", AT_ONCE, ids=shown)
def test_a_mistake_gets_one_line_that_names_it(command: str, places, tmp_path: Path, monkeypatch, capsys) -> None:
    code, lines = run_and_read(command, places, tmp_path, monkeypatch, capsys)
    assert code == 2
    assert len(lines) == 1
    expected = re.sub(r"\{([\w.]+)\}", lambda m: places(m[1]) if m[1] in ("other", "root") else m[0], AT_ONCE[command])
    assert expected in lines[0]
    assert "error: " in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("command", AT_WORK, ids=shown)
def test_a_mistake_found_at_work_ends_in_one_line(command: str, places, tmp_path: Path, monkeypatch, capsys) -> None:
    code, lines = run_and_read(command, places, tmp_path, monkeypatch, capsys)
    assert code == 2
    assert AT_WORK[command] in lines[-1]
    assert [line for line in lines if "error: " in line or "Traceback" in line] == lines[-1:]


@pytest.mark.parametrize("action", [lambda: torch.empty(1 << 60), lambda: bytes(1 << 62)], ids=["torch", "python"])
def test_out_of_memory_is_one_line(action: Callable[[], object], capsys: pytest.CaptureFixture) -> None:
    assert guarded(action) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flexiast: error: out of memory (")


def test_our_own_mistakes_are_not_called_the_users() -> None:
    with pytest.raises(RuntimeError, match="of our own"):
        guarded(lambda: exec('raise RuntimeError("a mistake of our own")'))


def test_a_file_name_that_is_not_utf8_is_printed_as_it_is(places, tmp_path: Path, capfdbinary) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    shutil.copy(places("clip"), path)
    assert main(["predict", places("model"), os.fsdecode(path), "--top-k", "1"]) == 0
    assert capfdbinary.readouterr().out.startswith(path)


def test_a_run_whose_log_was_removed_goes_on(places, tmp_path: Path) -> None:
    shutil.copytree(places("run"), tmp_path / "run")
    (tmp_path / "run" / "train.jsonl").unlink()
    command = RESUME.format(run=tmp_path / "run") + f" --data.train {places('train')} --epochs 0.2 --override"
    assert main(shlex.split(command)[1:]) == 0
    lines = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]


def test_there_are_enough_of_them() -> None:
    assert len(AT_ONCE) + len(AT_WORK) >= 60


@pytest.mark.parametrize(("characters", "rule"), [("╭╮╰╯│", "─"), ("     ", "-")], ids=["box", "plain"])
def test_a_box_becomes_a_line(characters: str, rule: str) -> None:
    left, right, below, end, side = characters
    title = f"{left}{rule} Value error {rule}{right}" if side != " " else f" Value error \n {rule * 9} "
    lines = [f"{side} {text} {side}" for text in ("Error parsing --x: 'a'", rule * 9, "see --help")]
    box = "\n".join([title, *lines, below + end])
    assert in_one_line(box) == "Error parsing --x: 'a'; see --help"


def test_the_tests_that_the_page_names_are_there() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "robustness.md").read_text())
    defined = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 20
    assert set(named) <= defined
