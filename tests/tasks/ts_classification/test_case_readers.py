"""Files of labelled series, right and wrong, as a user has them."""

import gzip
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tasks.ts_classification import csv_file, readers, ts_file

WIDE = "label,t0,t1,t2\nup,1,2,3\ndown,3,2,1\nup,1,5,\n"
LONG = "case,time,label,x,y\na,0,up,1,10\na,1,up,2,20\nb,0,down,3,30\n"
TS = "# a comment\n@problemName toy\n@classLabel true Up down\n@data\n1,2,3:4,5,6:down\n\n7,8:9,10:Up\n"


@pytest.fixture
def file(tmp_path):
    """`file(name, text)`: a file with that text."""

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def read(path, **options):
    return readers.read(path, **options)[0]


def test_a_wide_csv_has_a_case_a_row_and_ends_where_cells_are_empty(file):
    cases = read(file("x.csv", WIDE))
    assert cases.values.shape == (3, 3, 1) and cases.lengths.tolist() == [3, 3, 2]
    assert cases.labels == ["up", "down", "up"] and cases.classes == ["down", "up"]
    assert cases.values[2, :, 0].tolist() == [1, 5, 0]


def test_a_long_csv_has_a_variate_a_column_and_cases_of_any_length(file):
    cases = read(file("x.csv", LONG))
    assert cases.variates == ["x", "y"] and cases.names == ["a", "b"]
    assert cases.values.tolist() == [[[1, 10], [2, 20]], [[3, 30], [0, 0]]]
    assert cases.lengths.tolist() == [2, 1] and cases.labels == ["up", "down"]


def test_rows_of_a_long_csv_may_be_mixed(file):
    lines = LONG.splitlines()
    mixed = "\n".join([lines[0], lines[1], lines[3], lines[2]])
    np.testing.assert_array_equal(read(file("x.csv", mixed)).values, read(file("y.csv", LONG)).values)


def test_columns_may_have_other_names(file):
    text = LONG.replace("case", "id").replace("time", "hour").replace("label", "kind")
    cases = read(file("x.csv", text), columns=csv_file.Columns("kind", "id", "hour"))
    assert cases.variates == ["x", "y"] and cases.labels == ["up", "down"]


def test_a_csv_to_predict_needs_no_labels(file):
    cases = read(file("x.csv", WIDE.replace("label,", "").replace("up,", "").replace("down,", "")), labelled=False)
    assert cases.labels is None and cases.values.shape == (3, 3, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WIDE.replace("label", "lable"), [r"no column 'label' \(data.label_column\)", "nearest: lable"]),
        (WIDE.replace("2,3", "two,3"), ["column 't1', line 2", "'two' is not a number"]),
        (WIDE + "up,1,,3\n", ["case line 5", "index 1", "is missing"]),
        (WIDE + ",1,2,3\n", ["column 'label', line 5", "empty"]),
        (WIDE + "up,,,\n", ["case line 5 has no values"]),
        ("label\nup\n", ["no column holds a series"]),
        ("", ["is empty"]),
        ("label,t0\n", ["no rows"]),
        (LONG.replace("a,1,up", "a,1,down"), ["line 3", "case a is labelled 'down'", "'up' before"]),
        (LONG.replace("a,1,up", "a,0,up"), ["column 'time', line 3", "does not come after"]),
        (LONG.replace("a,1,up", "a,later,up"), ["line 3", "'later' is neither a number nor a date"]),
        (LONG.replace("2,20", ",20"), ["case a", "channel x", "index 1"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_csv_is_told_in_one_line(file, text, words):
    with pytest.raises(ValueError) as told:
        read(file("x.csv", text))
    assert "\n" not in str(told.value) and str(told.value).count("x.csv") >= 1
    for word in words:
        told.match(word)


def test_a_ts_file_keeps_the_order_and_the_case_of_class_names(file):
    cases = read(file("toy.ts", TS))
    assert cases.classes == ["Up", "down"] and cases.labels == ["down", "Up"]
    assert cases.lengths.tolist() == [3, 2] and cases.values[0].T.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2:3,4:a\n", "no line @data"),
        (TS.replace("7,8:", "7,eight:"), "line 7, variate 1: .*eight"),
        (TS.replace(":Up", ":sideways"), "line 7: label 'sideways' is not in @classLabel: Up, down"),
        (TS.replace("7,8:", ""), "line 7 has 1 variates, the first case has 2"),
        (TS.replace("7,8:", "7,?:"), "case 2, channel v1, index 1"),
        ("@classLabel true a\n@data\n", "holds no cases"),
        ("@timestamps true\n" + TS, "@timestamps true is not read"),
    ],
)
def test_a_wrong_ts_file_is_told_with_its_line(text, words):
    with pytest.raises(ValueError, match=words):
        ts_file.read(text, "toy.ts")


@pytest.mark.skipif(find_spec("aeon") is None, reason="compares with aeon's files and loader: pip install aeon")
@pytest.mark.parametrize("name", ["BasicMotions", "JapaneseVowels"])
def test_a_ts_file_gives_the_numbers_of_aeons_loader(name):
    folder = Path(find_spec("aeon").origin).parent / "datasets" / "data" / name
    from aeon.datasets import load_from_ts_file

    theirs, labels = load_from_ts_file(str(folder / f"{name}_TEST.ts"))
    ours = read(folder / f"{name}_TEST.ts")
    assert [label.lower() for label in ours.labels] == list(labels)
    for values, length, expected in zip(ours.values, ours.lengths, theirs, strict=True):
        np.testing.assert_array_equal(values[:length].T, expected.astype(np.float32))


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 5)], ids=["variates", "one variate"])
def test_arrays_of_ones_own_are_cases_variates_steps(tmp_path, shape):
    x = np.random.default_rng(0).normal(size=shape)
    np.savez(tmp_path / "x.npz", X=x, y=[1, 0, 10, 2], lengths=[5, 4, 5, 5])
    cases = read(tmp_path / "x.npz")
    assert cases.classes == ["0", "1", "2", "10"] and cases.labels == ["1", "0", "10", "2"]
    np.testing.assert_array_equal(cases.values[0], np.atleast_2d(x[0]).T.astype(np.float32))
    assert cases.lengths.tolist() == [5, 4, 5, 5] and not cases.values[1, 4].any()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"data": np.zeros((2, 3))}, "holds data: give X"),
        ({"X": np.zeros((4, 3)), "y": np.zeros(3)}, r"y has shape \(3,\), X has 4 cases"),
        ({"X": np.zeros(4), "y": np.zeros(4)}, r"of shape \(4,\): give numbers"),
        ({"X": np.array([["a"]]), "y": np.zeros(1)}, "give numbers"),
        ({"X": np.zeros((2, 3)), "y": np.array([0, 2]), "classes": np.array(["a", "b"])}, "positions in classes"),
        ({"X": np.zeros((2, 3)), "y": np.zeros(2), "lengths": np.array([1, 9])}, "lengths reaches from 1 to 9"),
        ({"X": np.zeros((0, 3)), "y": np.zeros(0)}, "holds no cases"),
        ({"X": np.array([[1, np.nan, 2]]), "y": np.zeros(1)}, "case 1, channel v1, index 1"),
        ({"X": np.array([[1, np.inf, 2]]), "y": np.zeros(1)}, "infinite"),
    ],
)
def test_wrong_arrays_are_told_in_one_line(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "x.npz")


def test_the_archives_zip_gives_training_and_test_part(tmp_path):
    with zipfile.ZipFile(tmp_path / "Toy.zip", "w") as archive:
        archive.writestr("Toy_TRAIN.ts", TS)
        archive.writestr("Toy_eq_TRAIN.ts", "not this one")
        archive.writestr("Toy_TEST.ts", TS.replace("7,8", "70,80"))
    train, test = readers.read(tmp_path / "Toy.zip")
    assert train.values[1, 0, 0] == 7 and test.values[1, 0, 0] == 70


def test_a_damaged_or_foreign_archive_is_told(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match="damaged archive"):
        read(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"no file that ends in _TRAIN.ts: notes.txt"):
        read(tmp_path / "y.zip")


def test_a_gzipped_file_reads_the_same(tmp_path, file):
    for name, text in (("x.csv", WIDE), ("x.ts", TS)):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        np.testing.assert_array_equal(read(tmp_path / f"{name}.gz").values, read(file(name, text)).values)
