"""Which way dependencies point: torch → library → laboratory, and what only some files may import."""

import ast
import sys
from pathlib import Path

import pytest

import detloss

ROOT = Path(detloss.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LIBRARY = [file for file in FILES if "lab" not in file.relative_to(ROOT).parts[:1]]
LIBRARY = [file for file in LIBRARY if file.name != "__main__.py"]  # it starts the laboratory


def imported(file: Path) -> set[str]:
    """The modules that a file imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(file)}


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_library_needs_torch_only_and_knows_no_laboratory(file):
    client = {file.stem} if file.parent.name == "integrations" else set()
    assert tops(file) - sys.stdlib_module_names <= {"torch", "detloss"} | client
    assert not [name for name in imported(file) if name.startswith("detloss.lab")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_drawing_and_the_command_line_have_their_own_files(file):
    assert "matplotlib" not in tops(file) or file.name == "figures.py"
    assert "matplotlib.pyplot" not in imported(file)  # global state, windows
    on_the_command_line = file.parent.name == "cli" or file.name.endswith("command.py")
    assert "tyro" not in tops(file) or on_the_command_line


@pytest.mark.parametrize("client", ["torchvision", "transformers", "ultralytics", "rfdetr"])
def test_a_client_is_imported_when_its_losses_are_swapped_and_not_before(client):
    file = ROOT / f"integrations/{client}.py"
    at_once = [
        node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
    ]
    assert {str(node.module).partition(".")[0] for node in at_once} - sys.stdlib_module_names <= {
        "torch",
        "detloss",
    }


FLOORS = [
    "_core",
    "boxes",
    "formula",
    "losses",
    "linear mining schedule balance",
    "calling",
    "names",
    "compiling",
    "integrations",
]


def test_the_library_is_built_from_below():
    """Each file knows its own floor and those below."""
    floor_of = {name: height for height, names in enumerate(FLOORS) for name in names.split()}
    for file in LIBRARY:
        here = file.relative_to(ROOT).with_suffix("").parts[0]
        if here == "__init__":
            continue
        for name in imported(file):
            parts = name.split(".")
            if parts[0] == "detloss" and len(parts) > 1 and parts[1] in floor_of:
                assert floor_of[parts[1]] <= floor_of[here], f"{file} imports {name}"
