"""What is printed is what the names are, whatever they hold."""

import io

import pytest
from rich.console import Console

from detloss.lab.cli import terminal
from detloss.lab.cli.terminal import counting, printable, say, show_table


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]", "[red]"),
        (":-1:", ":-1:"),
        ("猫", "猫"),
        ("a\u200db", "a\u200db"),  # joins letters in many scripts
        ("bell\x07", r"bell\x07"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb", r"a\rb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udc80", r"\udc80"),
    ],
)
def test_names_do_not_steer_the_terminal(name, shown, capsys):
    assert printable(name) == shown
    say(f"class {name}")
    show_table(["class", "AP"], [[name, "1.0"]])
    with counting(name) as progress:
        progress(1, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"class {shown}"
    assert any(line.startswith(shown) for line in lines[1:])


HEADS = ["loss", "lr", "box\nweight", "runs", "AP", "against the first"]
ROWS = [
    ["focal,gamma=1.5+giou", "0.003", "2", "5/5", "38.1 ± 0.6", "+1.4 ± 0.9 better"],
    ["bce", "0.001", "15", "5/5", "37.2 ± 0.6", "– the first"],
]


@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 120])
def test_nothing_of_a_table_is_cut_however_narrow_the_terminal(width, monkeypatch):
    narrow = Console(width=width, file=io.StringIO(), highlight=False)
    monkeypatch.setattr(terminal, "console", narrow)
    show_table(HEADS, ROWS)
    text = narrow.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    squeezed = "".join(text.split())
    for row in ROWS:
        for cell in row[1:]:
            assert "".join(cell.split()) in squeezed
    assert "bce" in squeezed
    assert "focal,gamma=1.5+giou" in squeezed or "focal,gamma" in squeezed  # folded between the numbers
    assert "…" not in text
