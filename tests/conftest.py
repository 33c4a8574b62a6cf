"""What holds for all tests: shapes and types are checked at run time, and nothing is fetched from the hub.

jaxtyping's import hook rewrites every module of the package so that beartype checks its annotations, array shapes
included. The hook must stand before the first import of the package. Users pay nothing for it.
"""

import functools
import inspect
import os
import types
import typing

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before any test imports it
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is: products of the tests' size lose by being split
os.fsync = lambda handle: os.fstat(handle) and None  # no test cuts the power, and waiting for the disk takes minutes

settings.register_profile("house", deadline=None)  # a machine that others use too is slow at times
settings.load_profile("house")

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for


def speaks_of_arrays(hint: object) -> bool:
    """Whether an array of jaxtyping's is anywhere in an annotation."""
    if isinstance(hint, list | tuple):
        return any(map(speaks_of_arrays, hint))
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(speaks_of_arrays, typing.get_args(hint)))


def meant(hint: object, function: types.FunctionType) -> object:
    """What an annotation names; anything at all, as jaxtyping has it, where that is not there yet or for mypy alone."""
    try:
        one = types.SimpleNamespace(__annotations__={"hint": hint})
        return typing.get_type_hints(one, function.__globals__, include_extras=True)["hint"]
    except NameError:
        return typing.Any


def checked(thing=None, *, typechecker):
    """`jaxtyping.jaxtyped`, but beartype alone where no annotation is of an array.

    There are no axes then to be held together, and jaxtyping would bind the arguments by name and check them twice,
    which took a third of the time of a run. What is checked is the same.
    """
    if thing is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isfunction(thing):
        return jaxtyped(thing, typechecker=typechecker)
    hints = {name: meant(hint, thing) for name, hint in inspect.get_annotations(thing).items()}
    if speaks_of_arrays(list(hints.values())):
        return jaxtyped(thing, typechecker=typechecker)
    thing.__annotations__ = hints
    return check(thing)


jaxtyped, jaxtyping.jaxtyped = jaxtyping.jaxtyped, checked  # what the hook writes above each function

LONGEST = (
    "end_to_end", "parallel", "cli", "recipes", "asking_runs", "embedded", "study_run", "layers", "sweep",
    "store_match", "store", "finding_pages", "export", "imports_run", "precision", "cost", "causal", "architectures",
)  # fmt: skip
"""Files that take longest, in that order: of two processes neither is left with one of them at the end."""


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


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


@pytest.fixture
def undrawn(monkeypatch):
    """Figures without anything in them: drawing takes as long as all else, and other tests have the real ones."""
    empty = {"png": b"\x89PNG", "svg": b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'}
    for module in ("figures", "training.figures"):
        monkeypatch.setattr(f"saelens_n2g.{module}.render", lambda _draw, _size, kind, *_: empty[kind])
