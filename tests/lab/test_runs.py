"""Run folders are numbered; files are whole or not there."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from detloss.lab.runs import (
    new_folder,
    read_columns,
    read_csv,
    read_json,
    versions,
    write_csv,
    write_json,
    write_text,
)


class TestNewFolder:
    def test_numbers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        assert new_folder("train", None) == Path("runs/train-001")
        assert new_folder("train", None) == Path("runs/train-002")
        assert new_folder("compare", None) == Path("runs/compare-001")
        (tmp_path / "runs" / "train-001").rmdir()
        assert new_folder("train", None) == Path("runs/train-001")
        assert new_folder("train", None) == Path("runs/train-003")

    def test_exactly_the_given_one(self, tmp_path: Path):
        for _ in range(2):
            assert new_folder("train", tmp_path / "a" / "b") == tmp_path / "a" / "b"
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_a_file_is_no_folder(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match=r"file cannot be a folder \(File exists\)"):
            new_folder("train", tmp_path / "file")
        with pytest.raises(ValueError, match=r"cannot be a folder \(Not a directory\)"):
            new_folder("train", tmp_path / "file" / "below")


class TestWrite:
    def test_replaces_and_leaves_nothing_else(self, tmp_path: Path):
        path = tmp_path / "new" / "file.txt"
        write_text(path, "first, longer")
        write_text(path, "zweite ü")
        assert path.read_text("utf-8") == "zweite ü"
        assert [p.name for p in path.parent.iterdir()] == ["file.txt"]

    def test_json(self, tmp_path: Path):
        data = {"name": "白血球", "list": [1, 2.5, None], "nested": {"a": True}}
        write_json(tmp_path / "a.json", data)
        assert read_json(tmp_path / "a.json") == data
        assert "白血球" in (tmp_path / "a.json").read_text("utf-8")

    def test_what_fails_leaves_the_old_file(self, tmp_path: Path):
        path = tmp_path / "table.csv"
        write_csv(path, ("a",), [{"a": 1}])
        write_json(tmp_path / "a.json", 1)

        def rows():
            yield {"a": 2}
            raise RuntimeError("interrupted")

        with pytest.raises(RuntimeError, match="interrupted"):
            write_csv(path, ("a",), rows())
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", object())
        assert read_csv(path) == [{"a": "1"}]
        assert read_json(tmp_path / "a.json") == 1

    def test_csv(self, tmp_path: Path):
        path = tmp_path / "deep" / "table.csv"
        rows = [{"name": 'a, "b"', "value": 0.1 + 0.2}, {"name": "ü", "value": None}]
        write_csv(path, ("name", "value"), rows)
        with path.open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [["name", "value"], ['a, "b"', "0.30000000000000004"], ["ü", ""]]
        # What was read can be written again, value for value.
        write_csv(path, ("name", "value"), read_csv(path))
        assert float(read_csv(path)[0]["value"]) == 0.1 + 0.2

    @pytest.mark.parametrize(
        "text",
        [
            "=1+1",
            "+1 a",
            "-cmd()",
            "@x",
            "\t=1",
            "'=1",
            "''-a",
            "'-0.5",
            "'",
            "'a",
            "-0.5",
            "+3",
            "-inf",
            "a=1",
        ],
    )
    def test_no_cell_of_a_csv_is_a_formula(self, tmp_path: Path, text):
        write_csv(tmp_path / "a.csv", ("class", "ap"), [{"class": text, "ap": -0.5}])
        with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
            name, ap = list(csv.reader(file))[1]
        assert ap == "-0.5"
        assert name[0] not in "=+-@\t" or float(name) == float(text)
        assert read_csv(tmp_path / "a.csv") == [{"class": text, "ap": "-0.5"}]

    def test_csv_with_an_unknown_column(self, tmp_path: Path):
        with pytest.raises(ValueError, match="not in fieldnames"):
            write_csv(tmp_path / "a.csv", ("a",), [{"b": 1}])
        assert not (tmp_path / "a.csv").exists()

    def test_an_absent_table_has_no_rows(self, tmp_path: Path):
        assert read_csv(tmp_path / "no.csv") == []
        assert read_columns(tmp_path / "no.csv") == {}

    def test_columns(self, tmp_path: Path):
        write_csv(
            tmp_path / "a.csv", ("n", "x", "name"), [{"n": 1, "x": None, "name": "a"}, {"n": 2, "x": 0.5}]
        )
        columns = read_columns(tmp_path / "a.csv")
        assert list(columns) == ["n", "x"]
        np.testing.assert_array_equal(columns["x"], [math.nan, 0.5])


def test_versions_are_plain_and_complete():
    found = versions("cpu")
    assert json.loads(json.dumps(found)) == found
    for name in ("detloss", "torch", "numpy", "python", "platform", "cpu", "device", "commit"):
        assert name in found
    assert found["device"] == "cpu"
