import signal

import pytest
import torch
from hypothesis import settings

from detloss._core import compiler
from detloss._core.private import CAN_FUSE

# Tensors here are tiny: a second thread only waits for the first, many times as long where others work too.
torch.set_num_threads(1)
# No example is too slow: on a busy machine any may be.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
# A shell that starts the tests in the background has these ignored, which its children inherit.
for _name, _usual in (
    ("SIGINT", signal.default_int_handler),
    ("SIGQUIT", signal.SIG_DFL),
    ("SIGHUP", signal.SIG_DFL),
):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _usual)


def pytest_configure(config):
    """With a torch that is too old for the fused pass "auto" says so once; the eager tests are left."""
    if not CAN_FUSE:
        config.addinivalue_line("filterwarnings", "ignore:the fused pass needs torch:UserWarning")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """What needs the fused pass is left out where torch is too old for it."""
    try:
        return (yield)
    except RuntimeError as error:
        if CAN_FUSE or "the fused pass needs torch" not in str(error):
            raise
        pytest.skip("this torch has no fused pass")


@pytest.fixture(scope="session", autouse=True)
def scene_cache(tmp_path_factory):
    """Scenes drawn by tests are kept for the session, away from the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DETLOSS_CACHE", str(folder))
        yield folder


@pytest.fixture
def builds(monkeypatch):
    """How many passes are compiled, from an empty memory on."""
    built = []
    original = compiler.build

    def counting(form):
        built.append(form)
        return original(form)

    monkeypatch.setattr(compiler, "build", counting)
    monkeypatch.setattr(compiler, "passes", {})
    return built
