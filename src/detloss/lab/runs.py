"""Run folders: where a command leaves its results, and files that are either whole or not there."""

import contextlib
import csv
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detloss.lab.files import Damaged, replacing
from detloss.lab.records import first_line


class WrongFolder(ValueError):
    """A folder that results cannot go into; the command line asks for another."""


def new_folder(command: str, out: Path | None) -> Path:
    """`out` itself, or the next free `runs/<command>-<number>`; made if it is not there.

    Raises:
        WrongFolder: the path cannot be a folder.
    """
    root = Path("runs") if out is None else out
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongFolder(f"{root} cannot be a folder ({error.strerror})") from None
    number = 1
    while out is None:
        try:
            numbered = root / f"{command}-{number:03d}"
            numbered.mkdir()
            out = numbered
        except FileExistsError:
            number += 1
    return out


def write_text(path: Path, text: str) -> None:
    """As `replacing`, of a text."""
    replacing(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """As `write_text`, of JSON."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        Damaged: it is empty, cut off, or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> Damaged:
    return Damaged(f"{path} is damaged ({first_line(error)}); remove it, and the same command makes it anew")


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """As `write_text`, of a table."""
    text = table_text(names, rows)
    replacing(
        path,
        lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace", newline=""),
    )


def table_text(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV."""
    file = io.StringIO(newline="")
    table = csv.DictWriter(file, names)
    table.writeheader()
    table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets ' before it, which `read_csv` takes away."""
    return f"'{value}" if isinstance(value, str) and _formula(value) else value


def _formula(text: str) -> bool:
    inner = text.lstrip("'")
    if inner[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return False
    try:
        float(inner)
    except ValueError:
        return True
    return inner != text


def write_tables(out: Path, tables: Mapping[str, Sequence[Any]]) -> None:
    """Writes each table to `out`/NAME.csv; its rows are dataclasses, or all of the same names and values."""
    for name, rows in tables.items():
        plain = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else row for row in rows]
        write_csv(out / f"{name}.csv", list(plain[0]) if plain else [], plain)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; an absent file has none.

    Raises:
        Damaged: it is no text.
    """
    try:
        return table_rows(path.read_bytes().decode()) if path.exists() else []
    except (ValueError, csv.Error) as error:
        raise _damaged(path, error) from None


def table_rows(text: str) -> list[dict[str, str]]:
    """The rows of `table_text`."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: _text(cell) for name, cell in row.items()} for row in rows]


def _text(cell: str) -> str:
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _formula(cell) else cell


def columns(rows: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """The columns of a table that hold numbers; an empty field is nan."""
    found = {}
    for name in rows[0] if rows else ():
        with contextlib.suppress(ValueError):
            found[name] = np.array([float(row[name] or "nan") for row in rows])
    return found


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """`columns` of a file."""
    return columns(read_csv(path))


def versions(device: str) -> dict[str, Any]:
    """Hardware and software, for the record."""
    names = ("detloss", "torch", "numpy", "hotcoco", "pillow")
    return {
        **{name: version(name) for name in names},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "commit": _commit(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _commit() -> str | None:
    """The commit of the detloss checkout that runs, if it is one."""
    here = Path(__file__).parent
    # Installed into site-packages inside somebody's own repository, git would answer with that one's commit.
    if not (here.parents[2] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
