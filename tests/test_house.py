"""The house rules, read out of the source: who may import whom, what is documented, how long things may be."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from conftest import check, checked
from jaxtyping import Float, TypeCheckError

from saelens_n2g.graphs.labels import contrast
from saelens_n2g.scoring.counts import firing, require_same_shape

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "saelens_n2g"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

ROOMS = (
    "errors", "jobs", "markdown", "pages", "figures", "sites", "wikipedia", "provenance", "progress", "documents",
    "embedded", "corpus", "booting", "subject", "clients", "activations", "bases", "training", "exemplars", "graphs",
    "explanations", "scoring", "causal", "comparison", "imports", "study", "autointerp", "store", "server", "report",
    "commands", "cli",
)  # fmt: skip
"""Left to right: a room may import only rooms before it, inside functions too (docs/decisions.md)."""

FILE_LINES, FUNCTION_LINES = 400, 61
LONGER: dict[str, str] = {}
"""Functions that may be longer, with the reason."""

CONFIGS = {
    "SubjectConfig": "comparison/config.py",
    "TextConfig": "comparison/config.py",
    "RunConfig": "comparison/config.py",
    "UnitRule": "comparison/units.py",
    "TrainingConfig": "training/config.py",
    "LayersConfig": "comparison/layers.py",
    "ImportConfig": "imports/config.py",
    "StudyConfig": "study/config.py",
    "InterpretConfig": "autointerp/config.py",
    "Rules": "autointerp/judge.py",
    "Reading": "autointerp/reading.py",
    "IoiConfig": "causal/study.py",
    "PaperOptions": "graphs/paper.py",
    "SuffixOptions": "graphs/suffix.py",
    "RefinedOptions": "graphs/refined.py",
    "Weights": "graphs/weighing.py",
    "TableConfig": "explanations/tables.py",
    "Start": "training/objective.py",
    "TopKOptions": "training/architectures/topk.py",
    "ResamplingOptions": "training/architectures/resampling.py",
    "JumpReluOptions": "training/architectures/jumprelu.py",
    "ClientConfig": "clients/config.py",
}
NAMES_SAY_IT = {"seed", "training", "rule", "paper", "subject", "text"}
"""Fields that need no line: a seed, and parts of a run that have docstrings of their own."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(module: str) -> str:
    """`saelens_n2g.jobs.engine` -> `jobs`; the package itself is its version and lazy names, left of everything."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules of the package that a file imports, and whether that happens when the file is imported."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue  # for the reader and mypy only
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                for alias in child.names:
                    below = f"{child.module}.{alias.name}"
                    yield (below if is_module(below) else str(child.module)), at_import
            yield from visit(child, at_import and not isinstance(child, ast.FunctionDef | ast.Lambda))

    found = visit(TREES[path], True)
    return ((module, eager) for module, eager in found if module.split(".")[0] == PACKAGE.name)


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


# --- imports --------------------------------------------------------------------------------------------------


def test_every_room_has_its_place():
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert there == set(ROOMS)


def test_imports_point_left():
    wrong = []
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module, _ in imports(path):
            other = room_of(module)
            if room == "__init__" or other in ("", room):
                continue
            if ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_modules_import_in_no_circle():
    def module_of(path: Path) -> str:
        return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    edges = {module_of(p): {m for m, eager in imports(p) if eager and m != module_of(p)} for p in FILES}
    assert sum(map(len, edges.values())) > 50, "the imports were not found"
    TopologicalSorter(edges).prepare()  # raises CycleError with the circle


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)


def test_importing_the_package_and_the_command_is_cheap():
    seconds, loaded = [], ""
    for _ in range(3):
        before = os.times()
        loaded = fresh("import sys, saelens_n2g, saelens_n2g.cli; print(*sys.modules)").stdout
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
    heavy = {"torch", "transformers", "transformer_lens", "wandb", "numpy", "sklearn", "matplotlib", "datasets"}
    assert heavy & set(loaded.split()) == set()
    assert min(seconds) < 0.5, f"{seconds} s of CPU"


def test_the_core_loads_no_guest():
    """What composes the whole run imports no logger, plotter, statistics or dataset library before it is needed."""
    loaded = set(fresh("import sys, saelens_n2g.comparison.run; print(*sys.modules)").stdout.split())
    assert {"torch", "saelens_n2g.training.loop"} <= loaded | {"saelens_n2g.training.loop"}
    assert {"wandb", "matplotlib", "sklearn", "datasets", "transformers", "transformer_lens", "gguf"} & loaded == set()


# --- documentation --------------------------------------------------------------------------------------------


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def test_everything_public_has_a_docstring():
    """Modules, classes, functions; of methods those of more than two statements."""
    bare = [name_of(p) for p, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    for path, tree in TREES.items():
        for node in public(tree.body):
            members = public(node.body) if isinstance(node, ast.ClassDef) else iter(())
            asked = [node, *(m for m in members if isinstance(m, ast.FunctionDef) and len(m.body) > 2)]
            bare += [f"{name_of(path)}: {n.name}" for n in asked if not ast.get_docstring(n)]
    assert bare == []


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_is_explained_underneath(name):
    tree = TREES[PACKAGE / CONFIGS[name]]
    body = next(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    fields, bare = 0, []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields += 1
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not said and node.target.id not in NAMES_SAY_IT:
                bare.append(node.target.id)
    assert fields > 1
    assert bare == []


# --- size -----------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_files_fit_in_the_head():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}


def test_functions_are_short():
    long = {
        f"{name_of(path)}:{node.name}"
        for path, tree in TREES.items()
        for node in functions(tree)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == set(LONGER)


def test_annotations_are_values():
    """Shapes are checked at run time in tests, which strings for annotations would prevent."""
    assert [name_of(p) for p in FILES if "from __future__ import annotations" in p.read_text()] == []


@dataclass
class Pair:
    """Stands for a class that holds no array, and names itself."""

    left: int
    rest: "list[Pair]"


@dataclass
class Arrays:
    one: Float[np.ndarray, "k"]
    other: Float[np.ndarray, "k"]


def plain(one: int, other: "Pair | None" = None) -> str:
    return str(one) if other is None else one  # type: ignore[return-value]  # wrong on purpose


def longer(both: tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]) -> int:
    return max(map(len, both))


def joined(one: Float[np.ndarray, "k"], other: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    return np.concatenate([one, other]) if other.any() else one


def test_tests_check_types_and_shapes():
    """By the decorator that stands above every function here, and in the package itself."""
    things = (Pair, Arrays, plain, longer, joined)
    pair, arrays, said, most, in_one = (checked(typechecker=check)(thing) for thing in things)
    two, three = np.zeros(2), np.zeros(3)
    assert pair(1, []).left == 1
    assert len(arrays(two, two).one) == most((two, two)) == len(in_one(two, two)) == 2
    assert said(1) == "1"
    for wrong in (
        lambda: arrays(two, three),
        lambda: arrays(two, [0.0, 0.0]),
        lambda: said("1"),
        lambda: said(1, pair(1, [])),
        lambda: most((two, three)),
        lambda: in_one(two, three),
        lambda: in_one(two, two + 1),
        lambda: contrast("#000000", 0),  # type: ignore[arg-type]  # wrong on purpose
        lambda: firing(two, "half"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: require_same_shape(two, [0.0, 0.0]),  # type: ignore[arg-type]  # wrong on purpose
    ):
        with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
            wrong()


# --- what is said about it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text()


@pytest.mark.model
def test_the_readmes_example_runs(readme, tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 25, "the promise is some 20 lines"


def test_the_readme_shows_every_command(readme):
    from saelens_n2g.cli import app

    names = [command.callback.__name__ for command in app.registered_commands]
    assert len(names) >= 10
    assert [name for name in names if f"saelens-n2g {name}" not in readme] == []


def test_the_readmes_options_exist(readme):
    """Options in the command examples are options of that command."""
    from typer.main import get_command

    from saelens_n2g.cli import app

    known = get_command(app).commands
    lines = re.findall(r"^ {4}saelens-n2g (\w+)(.*)$", readme, re.MULTILINE)
    assert len(lines) >= 6
    for name, rest in lines:
        there = {option for parameter in known[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z]+", rest.partition("#")[0])) <= there, name


def test_links_in_the_readme_lead_somewhere(readme):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_version_is_the_newest_in_the_changelog():
    with open(ROOT / "pyproject.toml", "rb") as handle:
        version = tomllib.load(handle)["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
