"""Tables of public data sets, in miniature: read as they are published, with no option."""

from pathlib import Path

import pytest

from flexiast.data.manifest import Manifest, read_manifest
from flexiast.data.table_options import TableOptions
from flexiast.errors import DataError


def lay(root: Path, table: str, content: str, *audio: str) -> Path:
    """A data set: a table, and empty audio files; returns the table's path."""
    for name in (table, *audio):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / table).write_text(content)
    return root / table


def named(manifest: Manifest, root: Path) -> dict[str, tuple[str, ...]]:
    """Names of the labels of each clip, by its path below the root."""
    return {
        Path(clip.path).resolve().relative_to(root).as_posix(): tuple(manifest.labels.names[c] for c in clip.classes)
        for clip in manifest.clips
    }


def test_esc50(tmp_path):
    content = (
        "filename,fold,target,category,esc10,src_file,take\n1-1-A-0.wav,1,0,dog,True,1,A\n2-2-A-3.wav,2,3,cow,F,2,A\n"
    )
    table = lay(tmp_path, "meta/esc50.csv", content, "audio/1-1-A-0.wav", "audio/2-2-A-3.wav", "LICENSE")
    assert named(read_manifest(table), tmp_path) == {"audio/1-1-A-0.wav": ("dog",), "audio/2-2-A-3.wav": ("cow",)}
    numbers = read_manifest(table, None, tmp_path, TableOptions(label_column="target"))
    assert named(numbers, tmp_path) == {"audio/1-1-A-0.wav": ("0",), "audio/2-2-A-3.wav": ("3",)}


def test_esc50_encoded_anew_keeps_its_names_but_for_the_suffix(tmp_path, caplog):
    caplog.set_level("INFO", "flexiast")
    content = "filename,fold,target,category\n1-1-A-0.wav,1,0,dog\n2-2-A-3.wav,2,3,cow\n"
    table = lay(tmp_path, "meta/esc50.csv", content, "audio/1-1-A-0.ogg", "audio/2-2-A-3.ogg")
    assert list(named(read_manifest(table), tmp_path)) == ["audio/1-1-A-0.ogg", "audio/2-2-A-3.ogg"]
    assert [r.getMessage() for r in caplog.records if "2 files are looked for as '1-1-A-0.wav'" in r.getMessage()]
    assert "labels from column category (not from target)" in caplog.text


def test_urbansound8k(tmp_path):
    content = (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n100263-2-0-117.wav,100263,58.5,62.5,1,10,2,drilling\n"
    )
    audio = ("audio/fold5/100032-3-0-0.wav", "audio/fold10/100263-2-0-117.wav")
    table = lay(tmp_path, "metadata/UrbanSound8K.csv", content, *audio)
    assert named(read_manifest(table), tmp_path) == dict(zip(audio, [("dog_bark",), ("drilling",)], strict=True))
    assert named(read_manifest(table, None, tmp_path / "audio"), tmp_path).keys() == set(audio)


def test_fsd50k(tmp_path):
    content = (
        'fname,labels,mids,split\n64760,"Electric_guitar,Music","/m/02sgy,/m/04rlf",train\n16399,Bark,/m/0bt9lr,val\n'
    )
    table = lay(
        tmp_path,
        "FSD50K.ground_truth/dev.csv",
        content,
        *("FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav", "FSD50K.eval_audio/16399.wav"),
    )
    assert named(read_manifest(table), tmp_path) == {
        "FSD50K.dev_audio/64760.wav": ("Electric_guitar", "Music"),
        "FSD50K.dev_audio/16399.wav": ("Bark",),
    }
    options = TableOptions(path_prefix="FSD50K.dev_audio/", path_suffix=".wav", label_column="mids")
    mids = read_manifest(table, None, tmp_path, options)
    assert named(mids, tmp_path)["FSD50K.dev_audio/64760.wav"] == ("/m/02sgy", "/m/04rlf")


def test_fsdnoisy18k(tmp_path):
    content = "fname,label,aso_id,manually_verified\n10.wav,Acoustic_guitar,/m/042v_gx,1\n99.wav,Fire,/m/1,0\n"
    audio = ("FSDnoisy18k.audio_train/10.wav", "FSDnoisy18k.audio_train/99.wav", "FSDnoisy18k.audio_test/10.wav")
    table = lay(tmp_path, "FSDnoisy18k.meta/train.csv", content, *audio)
    assert named(read_manifest(table), tmp_path) == {audio[0]: ("Acoustic_guitar",), audio[1]: ("Fire",)}


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("meta.txt", "audio/b020.wav\tbeach\tb020\naudio/c1.wav\tcity_center\tc001\n"),
        ("meta.csv", "filename\tscene_label\tidentifier\naudio/b020.wav\tbeach\tb\naudio/c1.wav\tcity_center\tc\n"),
        ("evaluation_setup/fold1_train.txt", "audio/b020.wav\tbeach\naudio/c1.wav\tcity_center\n"),
        (
            "evaluation_setup/fold1_train.csv",
            "filename\tscene_label\naudio/b020.wav\tbeach\naudio/c1.wav\tcity_center\n",
        ),
    ],
)
def test_dcase(table, content, tmp_path):
    path = lay(tmp_path, table, content, "audio/b020.wav", "audio/c1.wav")
    assert named(read_manifest(path), tmp_path) == {"audio/b020.wav": ("beach",), "audio/c1.wav": ("city_center",)}


def test_audioset_segments(tmp_path):
    content = (
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2, num_segs=3, num_unique_labels=2\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"\n--BfvyPmVMo, 20.000, 30.000, "/m/03l9g"\n'
        '--4gqARaEJE, 30.000, 40.000, "/m/03l9g"\n'
    )
    stems = ("Y--4gqARaEJE_0.000_10.000", "Y--BfvyPmVMo_20.000_30.000", "Y--4gqARaEJE_30.000_40.000")
    table = lay(tmp_path, "balanced_train_segments.csv", content, *(f"audio/{stem}.flac" for stem in stems))
    labels = (("/m/068hy", "/m/07q6cd_"), ("/m/03l9g",), ("/m/03l9g",))
    assert named(read_manifest(table), tmp_path) == {
        f"audio/{stem}.flac": own for stem, own in zip(stems, labels, strict=True)
    }


def test_kaggle(tmp_path):
    audio = ("audio_train/00044347.wav", "audio_train/001ca53d.wav", "audio_test/00063640.wav")
    table = lay(tmp_path, "train.csv", "fname,label\n00044347.wav,Hi-hat\n001ca53d.wav,Saxophone\n", *audio)
    assert named(read_manifest(table), tmp_path) == {audio[0]: ("Hi-hat",), audio[1]: ("Saxophone",)}


def test_names_that_lie_in_two_folders_are_refused(tmp_path):
    table = lay(
        tmp_path, "labels.csv", "fname,label\n1.wav,a\n2.wav,b\n", "one/1.wav", "one/2.wav", "two/1.wav", "two/2.wav"
    )
    with pytest.raises(DataError, match=r"are in .*one and in .*two, such as '1.wav'; say which with --root"):
        read_manifest(table)
    assert set(named(read_manifest(table, root=tmp_path / "two"), tmp_path)) == {"two/1.wav", "two/2.wav"}


def test_paths_of_windows_and_of_another_machine(tmp_path):
    content = "path,label\nC:\\Users\\me\\set\\audio\\dog\\1.wav,dog\nC:\\Users\\me\\set\\audio\\cat\\1.wav,cat\n"
    table = lay(tmp_path, "train.csv", content, "audio/dog/1.wav", "audio/cat/1.wav")
    assert named(read_manifest(table), tmp_path) == {"audio/dog/1.wav": ("dog",), "audio/cat/1.wav": ("cat",)}
    relative = lay(tmp_path, "relative.csv", "path,label\naudio\\dog\\1.wav,dog\naudio\\cat\\1.wav,cat\n")
    assert list(named(read_manifest(relative), tmp_path)) == ["audio/dog/1.wav", "audio/cat/1.wav"]


def test_clips_in_folders_of_their_class(tmp_path):
    table = lay(tmp_path, "train.csv", "file,class\n1.wav,dog\n2.wav,cat\n", "data/dog/1.wav", "data/cat/2.wav")
    assert set(named(read_manifest(table), tmp_path)) == {"data/dog/1.wav", "data/cat/2.wav"}
