"""Set before any import of the package: shapes are checked at run time, nothing reaches for the
network, one thread."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="disabled",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MPLBACKEND="Agg",
)

import jaxtyping
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
jaxtyping.install_import_hook("mechreward", "beartype.beartype")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """`@pytest.mark.unchecked` calls the package as a user does, without the run-time types: for
    hostile input."""
    jaxtyping.config.update("jaxtyping_disable", item.get_closest_marker("unchecked") is not None)
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="session")
def one_core():
    """Work that is done side by side is done one after the other, but for tests/test_workers.py."""
    from mechreward.base import workers as _workers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_workers, "cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of the tiny random model (see tests/tiny.py) in HuggingFace format. Read only."""
    import tiny

    return tiny.save(tiny.huggingface(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    """The tiny model as users load it: a TransformerBridge. Shared, so leave it as it is."""
    from mechreward.models import load as adapter

    return adapter.load(tiny_folder)


@pytest.fixture(scope="session")
def real_model():
    """SmolLM2-135M-Instruct, a real language model, in float32. Shared, so leave it as it is."""
    from mechreward.models.load import load
    from mechreward.models.real import real_folder

    if not real_folder().is_dir():
        pytest.skip("needs SmolLM2, which is not there: make real")
    return load("smollm2")


@pytest.fixture(scope="session")
def tiny_plain():
    """The same weights as a bare HuggingFace model: the independent reference."""
    import tiny

    return tiny.huggingface()
