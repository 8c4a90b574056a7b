import gzip

import numpy as np
import pytest

from tasks.ts_forecast import readers

DAYS = [f"2020-01-{d:02d}" for d in range(1, 11)]


def csv_file(tmp_path, text, name="data.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def rows(*columns, dates=DAYS, header="date,a,b"):
    return header + "\n" + "\n".join(",".join(map(str, r)) for r in zip(dates, *columns, strict=True)) + "\n"


@pytest.fixture
def good(tmp_path):
    return csv_file(tmp_path, rows(range(10), range(10, 20)))


def test_a_csv_gives_its_numbers_names_and_dates(good):
    series = readers.read_csv(good)
    assert series.columns == ["a", "b"]
    np.testing.assert_array_equal(series.values[:, 1], np.arange(10.0, 20.0))
    assert str(series.dates[-1]) == "2020-01-10 00:00:00"


def test_a_gzipped_csv_reads_the_same(tmp_path, good):
    packed = tmp_path / "x.csv.gz"
    packed.write_bytes(gzip.compress(good.read_bytes()))
    np.testing.assert_array_equal(readers.read_csv(packed).values, readers.read_csv(good).values)


def test_latin_1_headers_are_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("date,T (\xb0C)\n2020-01-01,1\n".encode("latin-1"))
    assert readers.read_csv(path).columns == ["T (\xb0C)"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_seen(tmp_path, good, separator):
    path = csv_file(tmp_path, good.read_text().replace(",", separator), "x.csv")
    assert readers.read_csv(path).values.shape == (10, 2)


def test_columns_come_in_the_order_they_are_named(good):
    series = readers.read_csv(good, columns=["b", "a"])
    assert series.columns == ["b", "a"] and series.values[0].tolist() == [10, 0]


def test_numeric_column_names_may_be_given_as_numbers(tmp_path):
    path = csv_file(tmp_path, rows(range(10), range(10), header="date,0,1"))
    assert readers.read_csv(path, columns=[1]).columns == ["1"]


def test_an_unknown_column_gets_the_nearest_names(good):
    with pytest.raises(ValueError, match=r"no column 'aa'.*nearest: a"):
        readers.read_csv(good, columns=["aa"])


def test_a_file_without_dates_is_read(tmp_path):
    series = readers.read_csv(csv_file(tmp_path, "a,b\n1,2\n3,4\n"))
    assert series.dates is None and series.values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("header", ["Date,a,b", "timestamp,a,b", "when,a,b"])
def test_the_date_column_is_found_by_name_or_by_content(tmp_path, header):
    series = readers.read_csv(csv_file(tmp_path, rows(range(10), range(10), header=header)))
    assert series.dates is not None and series.columns == ["a", "b"]


def test_a_named_date_column_is_used(tmp_path):
    path = csv_file(tmp_path, rows(range(10), range(10), header="when,a,b"))
    assert len(readers.read_csv(path, date_column="when").dates) == 10
    with pytest.raises(ValueError, match=r"no column 'wen' \(data.date_column\); nearest: when"):
        readers.read_csv(path, date_column="wen")


def test_midnights_without_a_time_are_dates_too(tmp_path):
    path = csv_file(tmp_path, "date,a\n2020-01-01 23:00:00,1\n2020-01-02,2\n")
    assert str(readers.read_csv(path).dates[1]) == "2020-01-02 00:00:00"


def test_a_column_of_text_alone_is_left_out_with_a_warning(tmp_path, caplog):
    path = csv_file(tmp_path, rows(["x", "y"] * 5, range(10), header="date,station,a"))
    assert readers.read_csv(path).columns == ["a"]
    assert "'station' holds text only" in caplog.text


def test_blank_lines_do_not_shift_the_named_line(tmp_path):
    path = csv_file(tmp_path, "date,a\n\n2020-01-01,1\n\n2020-01-02,x\n")
    with pytest.raises(ValueError, match="column 'a', line 5: 'x' is not a number"):
        readers.read_csv(path)


def test_a_series_of_errors_name_file_column_and_line(tmp_path):
    wrong = {
        "text among numbers": (rows([*range(9), "n/k"], range(10)), "column 'a', line 11: 'n/k' is not a number"),
        "decimal comma": ("date;a\n2020-01-01;1,5\n2020-01-02;2\n", "column 'a', line 2: '1,5' is not a number"),
        "infinite value": (rows([*range(9), "inf"], range(10)), "column 'a', line 11: the value is infinite"),
        "duplicate date": (rows(range(10), range(10), dates=[*DAYS[:9], DAYS[3]]), "line 11 stands already at line 5"),
        "unsorted": (rows(range(10), range(10), dates=[*DAYS[:8], DAYS[9], DAYS[8]]), "not in order: .* at line 11"),
        "bad date": (rows(range(10), range(10), dates=[*DAYS[:9], "soon"]), "'date', line 11: 'soon' is not a date"),
        "all missing": (rows([""] * 10, range(10)), "column 'a' has no value at all"),
        "twice the same name": ("date,a,a\n2020-01-01,1,2\n", "column 'a' stands twice"),
        "too many fields": ("date,a\n2020-01-01,1\n2020-01-02,1,2,3\n", "Expected 2 fields in line 3, saw 4"),
        "no numbers": ("date,a\n2020-01-01,x\n", "no column holds numbers"),
        "header only": ("date,a\n", "has a header and no rows"),
        "empty": ("", "is empty"),
    }
    for name, (text, message) in wrong.items():
        path = csv_file(tmp_path, text)
        with pytest.raises(ValueError, match=message) as error:
            readers.read_csv(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value), name


def test_a_spreadsheet_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(ValueError, match="not a text file"):
        readers.read_csv(path)


@pytest.fixture
def gappy(tmp_path):
    return csv_file(tmp_path, rows(["", 1, "", "", 4, 5, 6, 7, 8, 9], range(10)))


def test_missing_values_are_refused_with_count_first_place_and_remedy(gappy):
    with pytest.raises(ValueError, match=r"'a' has 3 missing values, the first at line 2 \(2020-01-01.*ffill"):
        readers.read_csv(gappy)


@pytest.mark.parametrize(
    ("rule", "start"),
    [
        ("ffill", [1, 1, 1, 1, 4]),
        ("interpolate", [1, 1, 2, 3, 4]),
        ("zero", [0, 1, 0, 0, 4]),
        ("drop", [1, 4, 5, 6, 7]),
    ],
)
def test_each_missing_value_rule_does_what_it_says(gappy, rule, start):
    series = readers.read_csv(gappy, missing=rule)
    assert series.values[:5, 0].tolist() == start
    assert len(series.dates) == len(series.values)


def test_a_frequency_turns_absent_rows_into_missing_values(tmp_path):
    path = csv_file(tmp_path, rows(range(9), range(9), dates=[*DAYS[:4], *DAYS[5:]]))
    series = readers.read_csv(path, frequency="D", missing="interpolate")
    assert len(series.dates) == 10 and series.values[4, 0] == 3.5
    with pytest.raises(ValueError, match=r"has 1 missing values, the first at row 5 .2020-01-05"):
        readers.read_csv(path, frequency="D")


def test_a_date_off_the_grid_is_named(tmp_path):
    path = csv_file(tmp_path, rows(range(10), range(10), dates=[*DAYS[:9], "2020-01-10 05:00:00"]))
    with pytest.raises(ValueError, match=r"line 11 \(2020-01-10 05:00:00\) is not on the D grid"):
        readers.read_csv(path, frequency="D")


def test_sentinels_are_kept_with_a_warning(tmp_path, caplog):
    path = csv_file(tmp_path, rows([-9999, -9999, *range(8)], range(10)))
    assert readers.read_csv(path).values[0, 0] == -9999
    assert "-9999" in caplog.text and "'a' (2)" in caplog.text


def own(path, **changes):
    source = {"format": "csv", "files": []}
    return {"name": "csv", "source": source, "path": str(path), "variates": None, "marks": None, **changes} | {
        "date_column": changes.get("date_column", "auto")
    }


def test_complete_counts_the_variates_of_the_users_file(good):
    completed = readers.complete(own(good, lookback=7))
    assert (completed["variates"], completed["marks"], completed["lookback"]) == (2, 4, 7)


def test_complete_gives_no_marks_without_dates(tmp_path):
    assert readers.complete(own(csv_file(tmp_path, "a\n1\n2\n")))["marks"] == 0


def test_complete_opens_no_file_when_nothing_is_open():
    data = own("/no/such/file.csv", variates=3, marks=4)
    assert readers.complete(data) == data


def test_complete_lets_chosen_columns_replace_the_stated_number():
    data = {"name": "etth1", "source": {"format": "csv", "files": ["x"]}, "columns": ["OT"], "variates": 7, "marks": 4}
    assert readers.complete(data)["variates"] == 1


def test_solar_text_has_neither_header_nor_dates(tmp_path):
    path = csv_file(tmp_path, "0.1,0.2\n0.3,0.4\n", "solar.txt")
    series = readers.READERS["solar"](path)
    assert series.values.tolist() == [[0.1, 0.2], [0.3, 0.4]] and series.dates is None
    with pytest.raises(ValueError, match="line 2 has 1 values, the first line has 2"):
        readers.READERS["solar"](csv_file(tmp_path, "1,2\n3\n", "bad.txt"))


def test_pems_takes_the_first_feature_and_fills_gaps(tmp_path):
    data = np.arange(24.0).reshape(4, 2, 3)
    data[0, 0, 0] = data[2, 1, 0] = np.nan
    np.savez(tmp_path / "p.npz", data=data)
    assert readers.READERS["pems"](tmp_path / "p.npz").values.tolist() == [[6, 3], [6, 9], [12, 9], [18, 21]]


def test_a_file_that_is_no_pems_archive_is_named(tmp_path):
    np.savez(tmp_path / "p.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="not a PEMS archive"):
        readers.READERS["pems"](tmp_path / "p.npz")
    with pytest.raises(ValueError, match="not a PEMS archive"):
        readers.READERS["pems"](csv_file(tmp_path, "a,b\n", "q.npz"))
