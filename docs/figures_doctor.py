"""Draws docs/figures/doctor.png, of the loss in docs/doctor.md: `python docs/figures_doctor.py`."""

import io
import os
import re
import tempfile
from pathlib import Path

from PIL import Image

from detloss.lab.doctor import diagnose
from detloss.lab.doctor.figures import loss_beside_known
from detloss.lab.figures import save

PAGE = Path(__file__).parent / "doctor.md"


def loss_of_the_page() -> str:
    """The file that the page shows."""
    found = re.search(r'write_text\("""\\?\n(.*?)"""\)', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


if __name__ == "__main__":
    target = Path(__file__).parent / "figures" / "doctor.png"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("mine.py").write_text(loss_of_the_page(), encoding="utf-8")
        diagnosis = diagnose("mine.py:focal")
        assert diagnosis.curve is not None
        save(loss_beside_known(diagnosis.curve, "mine.py:focal"), Path("curve"), ["png"])
        drawn = io.BytesIO(Path("curve.png").read_bytes())
    Image.open(drawn).convert("RGB").quantize(64).save(target, optimize=True)
