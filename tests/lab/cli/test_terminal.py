"""What is printed is what the names are, whatever they hold."""

import pytest

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
