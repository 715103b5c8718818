"""The rows of the benchmark as tables: ratios only, since seconds are those of one machine."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from detloss.lab.cli.terminal import make_table

Rows = Sequence[Mapping[str, Any]]


def tables(rows: Rows) -> list[tuple[str, RenderableType]]:
    """For each loss, form of targets and dtype: how many times as fast as torchvision, or as eager.

    Each with its title: a line a variant, a column a size. Peak memory, what is kept for backward (both in
    units of the inputs' bytes) and the share of the limit are those of the variant's largest size.
    """
    return [_table(title, found) for title, found in grouped(rows).items()]


def grouped(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each loss, form of targets and dtype, under a title that names them."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        form = {"dense": ", dense targets", "index": ", class indices"}.get(row["targets"], "")
        groups.setdefault(f"{row['loss']}{form}, {row['dtype']}", []).append(row)
    return groups


def reference(rows: Rows) -> str:
    """What the others are compared to: torchvision where it was measured, else eager."""
    return "torchvision" if any(_measured(r) and r["variant"] == "torchvision" for r in rows) else "eager"


def _table(title: str, rows: Rows) -> tuple[str, RenderableType]:
    base = reference(rows)
    sizes = sorted({int(row["size"]) for row in rows})
    heads = ["variant", *map(short, sizes), "peak", "kept", "limit"]
    shown = []
    found = {(row["variant"], int(row["size"])): row for row in rows}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        measured = [row for row in rows if row["variant"] == variant and _measured(row)]
        if not measured:
            continue
        speeds = [_speed(found.get((base, size)), found.get((variant, size))) for size in sizes]
        last = max(measured, key=lambda row: int(row["size"]))
        share = f"{100 * float(last['limit_share']):.0f} %" if last["limit_share"] else ""
        memory = [f"{float(last[column]):.2f}" for column in ("peak_units", "kept_units")]
        shown.append([variant, *speeds, *memory, share])
    return f"{title}: times as fast as {base}", make_table(heads, shown, padding=0)


def _speed(base: Mapping[str, Any] | None, row: Mapping[str, Any] | None) -> str:
    if base is None or row is None or not (_measured(base) and _measured(row)):
        return "–"
    ratio = float(base["median_s"]) / float(row["median_s"])
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.2g}"


def _measured(row: Mapping[str, Any]) -> bool:
    return row["median_s"] != ""


def notes(rows: Rows) -> list[str]:
    """A line for each reason why a variant has no number."""
    where: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["note"]:
            where.setdefault((row["variant"], row["note"]), []).append(_cell(row))
    return [
        f"{variant}: {note} ({cells[0] if len(cells) == 1 else f'{len(cells)} times'})"
        for (variant, note), cells in where.items()
    ]


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['loss']} {row['targets']} {row['dtype']} {short(int(row['size']))}"


def line(rows: Rows) -> str:
    """One cell in a line: how many times as fast as its reference each variant is."""
    base = reference(rows)
    by_name = {row["variant"]: row for row in rows}
    speeds = [
        f"{name} {_speed(by_name.get(base), row)}×"
        for name, row in by_name.items()
        if _measured(row) and name != base
    ]
    return f"{_cell(rows[0])}, as fast as {base}: {', '.join(speeds) or 'nothing measured'}"


def short(size: int) -> str:
    """A number of elements in a few letters: 1e6, 2.5e4, 960."""
    if size < 1000:
        return str(size)
    return f"{size:.2e}".replace(".00e", "e").replace("0e", "e").replace("e+0", "e")
