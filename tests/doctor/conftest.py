"""Anybody's loss from a file, for the tests beside this one."""

import textwrap

import pytest
from doctor_subjects import HEAD

from detloss.doctor.calling.load import CannotExamine, load
from detloss.doctor.calling.settle import settle


@pytest.fixture
def settled(tmp_path):
    """Writes a file, loads a name of it and settles its form."""

    def settle_it(text, name="loss", head=HEAD, kind="auto"):
        path = tmp_path / "mine.py"
        path.write_text(head + textwrap.dedent(text))
        return settle(load(f"{path}:{name}"), kind)

    return settle_it


@pytest.fixture
def refused(settled):
    """The finding that ends the examination."""

    def finding(*args, **more):
        with pytest.raises(CannotExamine) as end:
            settled(*args, **more)
        return end.value.finding

    return finding
