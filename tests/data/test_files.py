"""Proves which files of a folder are data, what split a name says, and that content alone identifies data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from minibert.data.files import SPLIT_WORDS, digest, files_of_split, split_of
from minibert.errors import UserError


def lay(folder: Path, *names: str) -> Path:
    """Files with these names, each with its own name in it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def chosen(folder: Path, split: str) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files_of_split(folder, split)]


@pytest.mark.parametrize(
    ("split", "names"),
    {
        "train": [
            "train.jsonl", "snli_1.0_train.txt", "train-00000-of-00041.parquet", "TRAIN.CSV", "xnliTrainEn.tsv",
            "my training set.csv", "trainset.csv", "SNLItrain.jsonl", "train (2).json", "train/0000.parquet",
            "data/Training/a/b.txt", "train3.jsonl", "en.train.tsv", "[train].csv", "trainData1.csv",
        ],
        "validation": [
            "dev.jsonl", "dev_matched.tsv", "valid.csv", "val-1.csv", "validation_mismatched-00000.parquet",
            "development.txt", "SNLIDev.txt", "train/dev.jsonl", "devset/x.csv", "Validation Set 2.csv", "DEV01.tsv",
        ],
        "test": [
            "test (1).jsonl", "testing.jsonl", "training/testing.jsonl", "snliTest.jsonl", "eval.jsonl",
            "held-out.csv", "hold_out/a.csv", "holdout.tsv", "evaluation/part-1.json", "test/x/0000.parquet",
            "tests.csv",
            "SNLIEval.csv", "MNLItest.tsv", "SNLItestset2.csv",
        ],
        None: [
            "contest.txt", "latest.csv", "trainer.json", "protest/interval.csv", "developer.txt", "pretrain.txt",
            "snlitest.jsonl", "evaluator.csv", "part-0.txt", "valley/retest.csv", "attestation.txt", "0000.parquet",
        ],
    }.items(),
)  # fmt: skip
def test_the_split_that_a_name_says(split: str | None, names: list[str]) -> None:
    assert {name: split_of(name) for name in names} == dict.fromkeys(names, split)


def test_a_name_that_says_two_splits_is_refused() -> None:
    for name in ("train_test.csv", "dev-and-test/0000.parquet", "validTrain.json"):
        with pytest.raises(UserError, match=r"says .* and .*: rename it"):
            split_of(name)
    assert split_of("train_and_test/dev.csv") == "validation"  # the nearest name decides
    assert split_of("eval-test.csv") == "test"  # two words for one


def test_files_are_parted_by_name_or_folder(tmp_path: Path) -> None:
    flat = lay(tmp_path / "flat", "train.jsonl", "dev.jsonl", "eval.jsonl")
    deep = lay(tmp_path / "deep", *(f"{split}/000{number}.parquet" for split in SPLIT_WORDS for number in (1, 0)))
    mixed = lay(tmp_path / "test-data", "train_a.csv", "train_b.jsonl", "more/train.tsv", "snliTest.csv")
    assert [chosen(flat, split) for split in SPLIT_WORDS] == [["train.jsonl"], ["dev.jsonl"], ["eval.jsonl"]]
    assert chosen(deep, "validation") == ["validation/0000.parquet", "validation/0001.parquet"]
    # Several formats of one split are all read, and the given folder's own name does not matter.
    assert chosen(mixed, "train") == ["more/train.tsv", "train_a.csv", "train_b.jsonl"]
    with pytest.raises(
        UserError, match=r"no file below .*test-data is named as a validation split \(validation or valid"
    ):
        chosen(mixed, "validation")


@pytest.mark.parametrize("names", [("train.txt", "a.txt"), ("test/1.csv", "2.csv"), ("latest.tsv", "x/dev.tsv")])
def test_unnamed_files_beside_named_ones_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    unnamed = next(name for name in names if split_of(name) is None)
    with pytest.raises(UserError, match=f"{unnamed} names no split, but "):
        chosen(lay(tmp_path, *names), "train")


@pytest.mark.parametrize(
    "names",
    [
        ("snlitrain.csv", "snlidev.csv"),
        ("Xtrain.csv", "Xtest.csv", "b.csv"),
        ("mytrain1/0.csv", "mytest1/0.csv"),
        ("x_tr.csv", "x_va.csv", "x_te.csv"),
        ("trn.txt", "tst.txt"),
        ("tr/0.parquet", "va/0.parquet"),
        ("de.csv", "te.csv", "tr.csv"),  # of languages, but who knows
    ],
)
def test_names_that_only_seem_to_say_splits_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="look like files of several splits, but name none: put train"):
        chosen(lay(tmp_path, *names), "train")


@pytest.mark.parametrize("names", [("contest.csv", "latest.csv"), ("de.csv", "fr.csv", "tr.csv"), ("a.csv", "xtr.csv")])
def test_names_that_seem_to_say_one_split_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert chosen(lay(tmp_path, *names), "validation") == [*names]


@pytest.mark.parametrize(
    ("first", "second"), [("train.csv", "train 2.csv"), ("a.jsonl", "b.jsonl"), ("a.tsv", "mine/z.tsv")]
)
def test_the_same_content_twice_is_refused(tmp_path: Path, first: str, second: str) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\nrow\n")
    with pytest.raises(UserError, match="have the same content: move one of them away"):
        chosen(tmp_path, "train")
    (tmp_path / second).write_text("text\nwor\n")
    assert len(chosen(tmp_path, "train")) == 2
    for name in (first, second):
        (tmp_path / name).write_text("")
    assert len(chosen(tmp_path, "train")) == 2


@pytest.mark.parametrize("rows", [0, 2])
def test_the_same_table_twice_is_refused(tmp_path: Path, rows: int) -> None:
    for name in ("0.parquet", "1.parquet"):
        Dataset.from_dict({"text": [f"row {number}" for number in range(rows)]}).to_parquet(str(tmp_path / name))
    with pytest.raises(UserError, match="have the same content"):
        chosen(tmp_path, "train")


@pytest.mark.parametrize("table", ["index.csv", "list.json", "more/a.parquet", "more/a.tsv.gz"])
def test_files_of_other_formats_are_data_or_notes(tmp_path: Path, table: str) -> None:
    lay(tmp_path, "a.txt", "b.txt", table)
    with pytest.raises(UserError, match="are of several formats and name no split, so some may be notes: put train"):
        chosen(tmp_path, "train")
    assert chosen(lay(tmp_path / "named", "train.txt", "dev.csv"), "train") == ["train.txt"]


UNREAD = """
    b.jsonl.zst b.ndjson b.csv.xz x/b.parquet.zip B.NDJSON.gz b.xlsx b.csv.part b.json.crdownload b.csv.gz.part
    b.jsonl.gz.crdownload b.csv.part-01 b.txt.gz.tmp """


@pytest.mark.parametrize("name", UNREAD.split())
def test_formats_that_are_not_read_and_unfinished_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is unfinished or of a format that is not read"):
        chosen(lay(tmp_path, "a.csv", name), "train")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"_data_files": [{"filename": 7}]}', "[7]", '{"a": 1', None])
def test_the_state_of_another_program(tmp_path: Path, content: str | None) -> None:
    state = lay(tmp_path, "0.arrow") / "state.json"
    os.mkfifo(state) if content is None else state.write_text(content)
    assert chosen(tmp_path, "train") == ["0.arrow"]


def test_unnamed_files_alone_are_what_they_are_asked_for(tmp_path: Path) -> None:
    lay(tmp_path, "b.csv", "a/contest.csv")
    for split in SPLIT_WORDS:
        assert chosen(tmp_path, split) == ["a/contest.csv", "b.csv"]


def test_a_single_file_is_any_split_unless_its_name_says_otherwise(tmp_path: Path) -> None:
    lay(tmp_path / "train", "mine.csv", "test.csv", ".hidden.csv", "mine.bak.csv")
    for name in ("mine.csv", "test.csv", ".hidden.csv", "mine.bak.csv"):  # who names a file means it
        assert files_of_split(tmp_path / "train" / name, "test") == [tmp_path / "train" / name]
    with pytest.raises(UserError, match=r"test\.csv is named as a test file, but the train split"):
        files_of_split(tmp_path / "train" / "test.csv", "train")


NOBODYS = [
    ".git/x.txt", ".ipynb_checkpoints/train-checkpoint.csv", "__MACOSX/._train.csv", "._train.csv", "~$train.csv",
    "train.csv~", "#train.csv#", ".#train.csv", ".DS_Store", "Thumbs.db", "_SUCCESS", "_temporary/0/train.csv",
    "train.csv.tmp", "train.csv.part", "train.csv.crdownload", "train.csv.bak", "train.csv.swp", "lost+found/train.csv",
    "$RECYCLE.BIN/train.csv", "@eaDir/train.csv", ".cache/huggingface/train.csv", "cache-0123abc.arrow", "train.tsv",
    "train.csv.gz", "train.txt", "README.csv", "LICENSE.txt", "dataset_infos.json", "__pycache__/x.csv", "a.docx",
    "train.csv.~1~", "vocab.txt", "COPYING.txt", "LICENSE-MIT.txt", "SHA256SUMS.txt", "requirements.txt",
    "requirements-dev.txt", "AUTHORS.txt", "train.csv.zst", "train.ndjson", "train.xlsx", "snli.zip", "checksums.txt",
    "dataset-metadata.json", "vocabulary.txt", "CHECKSUM.txt",
]  # fmt: skip
COPIES = [
    "train.bak.csv", "train copy.csv", "train - Copy.csv", "train - Copy (2).csv", "Copy of train.csv", "train (1).csv",
    "train.old.csv", "train.tmp/0.csv", "train.csv.download/train.csv", "train(1).csv", "train - Kopie.csv",
    "train - Kopie (2).csv", "Kopie von train.csv", "train_copy.csv", "train.copy.csv", "train (copy 2).csv",
    "train (Ann's conflicted copy 2024-05-01).csv", "train-copie.csv", "TRAIN_Copia.tsv", "train - c\u00f3pia.csv.gz",
    "train.sync-conflict-20240501-101010-ABCDEF7.csv", "train_backup.csv", "train_old.csv", "train-checkpoint.csv",
    "train.~1~.csv", "old/train.csv", "backup/train.csv", "RECYCLER/S-1/train.csv", "old/train/1.csv",
]  # fmt: skip


def test_what_is_nobodys_data_is_left_alone(tmp_path: Path) -> None:
    """Hidden and unfinished files, notes, and the same in another format."""
    assert chosen(lay(tmp_path, "train.csv", *NOBODYS), "train") == ["train.csv"]


@pytest.mark.parametrize("name", COPIES)
def test_what_looks_like_a_copy_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"looks like a copy of .*train\.csv by its name: move it away, or rename it"):
        chosen(lay(tmp_path, "train.csv", "dev.csv", name), "train")
    assert chosen(tmp_path, "validation") == ["dev.csv"]


DATA = """
    train_old.csv old/1.csv kopie.csv copying-1.csv copycat.csv old.csv a.part.01.txt backups.txt tempera.json tmp.csv
    lorem_ipsum.txt copyright_law.txt authors_of_rome.txt notice_boards.txt """


@pytest.mark.parametrize("name", ["hard copy.csv", "part (1).csv", *DATA.split()])
def test_names_that_only_look_like_it_are_data(tmp_path: Path, name: str) -> None:
    """Copies, leftovers, and notes, of which each has a word."""
    assert chosen(lay(tmp_path, name, name.replace("1", "2")), "train")[0] == name


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file to read; known endings"):
        chosen(lay(tmp_path, "a.docx", ".git/a.txt", "empty/x.tmp"), "train")
    with pytest.raises(UserError, match=r"a\.docx: can't tell the format"):
        files_of_split(tmp_path / "a.docx", "train")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        files_of_split(tmp_path / "pipe.txt", "train")


def test_links(tmp_path: Path) -> None:
    """They are followed, once; one that leads nowhere means that data is missing."""
    lay(tmp_path / "elsewhere", "0.csv")
    lay(tmp_path / "data" / "test", "1.csv")
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "test" / "up").symlink_to(tmp_path / "data")
    assert chosen(tmp_path / "data", "train")[0] == "train/0.csv"
    assert "test/1.csv" in chosen(tmp_path / "data", "test")
    (tmp_path / "data" / "train-2.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(UserError, match=r"train-2\.csv is a link to .*gone\.csv, which is not there"):
        chosen(tmp_path / "data", "train")


def test_a_data_set_saved_to_disk(tmp_path: Path) -> None:
    """Its own files only: not those of an earlier, larger one, nor what was cached beside them."""
    rows = {"text": ["a", "b"]}
    parts = DatasetDict({split: Dataset.from_dict(rows) for split in SPLIT_WORDS})
    parts["train"].save_to_disk(str(tmp_path / "saved" / "train"), num_shards=2)
    parts.save_to_disk(str(tmp_path / "saved"))
    lay(tmp_path / "saved", "train/cache-1234.arrow", "train/data-00001-of-00002.arrow")
    for split in SPLIT_WORDS:
        assert chosen(tmp_path / "saved", split) == [f"{split}/data-00000-of-00001.arrow"]
    (tmp_path / "saved" / "test" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UserError, match=r"state\.json names data-00000-of-00001\.arrow, which is missing"):
        chosen(tmp_path / "saved", "train")


def test_content_identifies_data(tmp_path: Path) -> None:
    first, second = (lay(tmp_path / name, "a.txt", "b.txt") for name in ("one", "two"))
    files = files_of_split(first, "train")
    before = digest(files)
    assert digest(files_of_split(second, "train")) == before
    (second / "a.txt").rename(second / "a0.txt")
    assert digest(files_of_split(second, "train")) == before
    times = files[0].stat()
    files[0].write_text("A.txt")  # as long, and of the same time
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(files) != before
    assert len({digest(order) for order in (files, files[::-1], files[:1], [])}) == 4
    (second / "a0.txt").rename(second / "a0.csv")  # the same bytes say something else
    assert digest(sorted(second.iterdir())) != before
