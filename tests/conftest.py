import pytest
import torch
from hypothesis import settings

from detloss._core import compiler

# Tensors here are tiny: a second thread only waits for the first, many times as long where others work too.
torch.set_num_threads(1)
# No example is too slow: on a busy machine any may be.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


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
