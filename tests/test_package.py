"""What `import detloss` gives, and what it leaves out."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import detloss
from detloss import losses

ROOT = Path(__file__).parents[1]


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_torch_only():
    # numpy comes with torch; the rest of the workbench is not loaded for somebody who wants one loss
    loaded = in_a_fresh_process("import sys, detloss; print(*sys.modules)").split()
    tops = {name.partition(".")[0] for name in loaded}
    assert "torch" in tops
    assert not tops & {"matplotlib", "tyro", "rich", "hotcoco", "PIL", "jinja2", "safetensors"}
    assert not tops & {"torchvision", "pycocotools"}


def test_submodules_are_reached_by_import():
    code = (
        "from detloss.lab.data import load; from detloss.lab.evaluate import evaluate; print(load, evaluate)"
    )
    assert in_a_fresh_process(code).count("<function") == 2


def test_every_public_loss_and_box_function_is_on_the_page():
    own = {"box_convert", "paired_box_iou", "box_iou", "generalized_box_iou", "distance_box_iou"}
    own |= {"complete_box_iou", "linear_loss", "LinearLoss", "elementwise_loss", "box_loss", "precompile"}
    own |= {"__version__"}
    assert set(detloss.__all__) == own | set(losses.__all__)
    assert all(getattr(detloss, name) is getattr(losses, name) for name in losses.__all__)


def test_every_name_is_documented():
    for name in set(detloss.__all__) - {"__version__"}:
        assert len(getattr(detloss, name).__doc__ or "") > 40, name


def test_version_and_types():
    assert detloss.__version__ == version("detloss")
    assert re.fullmatch(r"\d+\.\d+\.\d+", detloss.__version__)
    assert (Path(detloss.__file__).parent / "py.typed").is_file()


def test_the_changelog_names_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {detloss.__version__}" in text
