"""What holds for all tests: shapes and types are checked at run time, and nothing is fetched from the hub.

jaxtyping's import hook rewrites every module of the package so that beartype checks its annotations, array shapes
included. The hook must stand before the first import of the package. Users pay nothing for it.
"""

import os

import pytest
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before any test imports it

settings.register_profile("house", deadline=None)  # a machine that others use too is slow at times
settings.load_profile("house")

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for

install_import_hook("saelens_n2g", f"{__name__}.check")

from tiny import tiny_corpus, tiny_model  # noqa: E402, F401  # fixtures of all files, imported behind the hook


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch on one thread: products of the tests' size only lose by being split, and much where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
