"""The IOI analysis of a layer: dictionaries beside principal components."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saelens_n2g.bases.directions import pca_basis
from saelens_n2g.bases.foreign import checksums, load_dictionary
from saelens_n2g.bases.hub import locate_dictionary
from saelens_n2g.bases.sae import SaeBasis, sae_basis
from saelens_n2g.causal.ioi import IoiPrompt, IoiTask, Performance, ioi_task, performance
from saelens_n2g.causal.ioi_report import in_short, write_report
from saelens_n2g.causal.ioi_result import VERSION, IoiResult
from saelens_n2g.causal.patching import Codes, codes_of, signed_pairs
from saelens_n2g.causal.searches import THRESHOLDS, Walk
from saelens_n2g.causal.study import (
    Curves,
    IoiConfig,
    Massive,
    Prompts,
    massive,
    rebuilt,
    run_basis,
    unique,
)
from saelens_n2g.commands.settings import config_of
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import committed, fingerprint, publishing, read_json, require, sha256_of, write_json
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.training.metrics import typical_limit
from saelens_n2g.training.rows import ArrayRows

if TYPE_CHECKING:
    from saelens_n2g.bases.dictionary import Dictionary

UNLIMITED = 10**9
"""Forward passes: more than any analysis takes."""
PRINCIPAL = ("PCA, signed", "PCA, non-negative")
TASK, BASES, REPORT, SEARCHES = "task", "bases", "report", "searches"
SWEEP = "sweep.json"
SAVE = 50
"""Forward passes after which a search is written down, to go on from there."""


# --- dictionaries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Given:
    """A dictionary that was asked for."""

    name: str
    folder: Path
    basis: SaeBasis
    dictionary: "Dictionary"

    def about(self) -> dict[str, Any]:
        """Checksums, and what it says of itself."""
        test = self.dictionary.told("evaluation", "test")
        return {
            "sha256": checksums(self.folder),
            "architecture": self.dictionary.architecture,
            "training": self.dictionary.metadata.get("training"),
            "fvu_test": test.get("fvu"),
            "fvu_typical_test": test.get("fvu_typical"),
            "l0_test": test.get("l0"),
        }


def dictionaries_at(specs: Sequence[str], site: Site, width: int) -> list[Given]:
    """The dictionaries at a site: of folders, of `hf:` names, and all that a sweep's folder has there.

    Raises `InputError` for a folder that is neither, a sweep with none at the site, or another width.
    """
    named: list[tuple[str, Path]] = []
    for spec in specs:
        folder = locate_dictionary(spec).absolute()
        if (folder / SWEEP).is_file():
            named += _of_sweep(folder, site)
        else:
            named.append((_name(folder), folder))
    given = []
    for name, (_, folder) in zip(unique([name for name, _ in named]), named, strict=True):
        one = load_dictionary(folder)
        if one.d_in != width:
            raise InputError(f"dictionary {folder}", f"d_in {width} ({site})", f"d_in {one.d_in}")
        given.append(Given(name, folder, sae_basis(site, one), one))
    return given


def _name(folder: Path) -> str:
    return folder.parent.name if folder.name == "sae" else folder.name


def identities(specs: Sequence[str]) -> list[Any]:
    """Names and checksums of all that `specs` may stand for, of a sweep those at other sites too: known without a
    model. What is no dictionary is refused where it is loaded."""
    found: list[Any] = []
    for spec in specs:
        folder = locate_dictionary(spec).absolute()
        if (folder / SWEEP).is_file():
            weights = sorted(folder.glob("*/sae"))
            found.append([sha256_of(folder / SWEEP), *([one.parent.name, checksums(one)] for one in weights)])
        else:
            found.append([_name(folder), checksums(folder) if folder.is_dir() else None])
    return found


def _of_sweep(folder: Path, site: Site) -> list[tuple[str, Path]]:
    """Names and folders of a sweep's dictionaries at a site."""
    value = read_json(folder / SWEEP)
    try:
        points = [(str(point["name"]), str(point["site"])) for point in value["points"]]
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"file {folder / 'sweep.json'}", "points with name and site", str(error)) from error
    there = [name for name, at in points if at == str(site)]
    if not there:
        raise InputError(f"sweep {folder}", f"dictionaries at {site}", ", ".join(sorted({at for _, at in points})))
    several = len({at for _, at in points}) > 1
    return [(name, folder / (f"{site}-{name}" if several else name) / "sae") for name in there]


# --- IOI ------------------------------------------------------------------------------------------------------


def ioi(
    *,
    out: Path,
    reporter: Reporter,
    layer: int | None = None,
    dictionary: Sequence[str] = (),
    prompts: int = IoiConfig.prompts,
    runs: int = IoiConfig.max_runs,
    exact: bool = False,
    **options: Any,
) -> Path:
    """Run or finish the IOI analysis of a layer's output; the path of its table, which is printed with the verdict.

    layer: None takes the middle one. dictionary: folders, `hf:` names, folders of sweeps. prompts, runs: fields of
    `IoiConfig`; exact takes the authors' ACDC in their place, without limit of runs. Principal components of the corpus
    always stand beside the dictionaries. `options` are those of `config_of`. `OUT/task/`, `OUT/bases/NAME/` and
    `OUT/report/` are whole or absent; what is finished for the same settings is not done again, a search that was
    stopped goes on where it was, and where all is finished no model is loaded. Raises `InputError`, and
    `ArtefactError` for damaged files.
    """
    study = IoiConfig(prompts=prompts, max_runs=runs, seed=options.get("seed", 0))
    if exact:
        study = replace(study, thresholds=THRESHOLDS, order="random", group=1, max_runs=UNLIMITED)
    workspace = Workspace(config_of(bases="pca", layer=layer or 0, **options), out, reporter)
    asked = fingerprint([VERSION, workspace.config.key("text"), layer, asdict(study), identities(dictionary)])
    report = out / REPORT
    if not _finished(out, asked):
        result = _analysed(workspace, layer, dictionary, study)
        with publishing(report, {"key": asked, "bases": [_slug(one.name) for one in result.curves]}) as work:
            write_report(result, work)
        workspace.discard_activations()
    require(report, "IOI report")
    print(in_short((report / "ioi.md").read_text()))
    print(f"report: {report / 'ioi.md'}")
    return report / "ioi.md"


def _finished(out: Path, asked: str) -> bool:
    """Whether the report of these settings is there, with the curves it was made of."""
    meta = committed(out / REPORT)
    if meta is None or meta.get("key") != asked:
        return False
    return all(committed(out / BASES / slug) is not None for slug in meta["bases"])


def _analysed(workspace: Workspace, layer: int | None, dictionary: Sequence[str], study: IoiConfig) -> IoiResult:
    """All parts of the analysis, run where they are not finished."""
    subject = workspace.subject
    if layer is None:
        workspace = workspace.under(replace(workspace.config, layer=subject.n_layers // 2))
    run = _Ioi(workspace, study)
    given = dictionaries_at(dictionary, run.site, subject.d_model)
    found = run.performance()
    workspace.reporter.note(f"{found.texts} texts, preferred {found.preferred:.2f}")
    curves = [run.dictionary(one) for one in given]
    curves += [run.principal(name) for name in PRINCIPAL]
    return IoiResult(run.site, found, run.massive(), tuple(curves), study, run.provenance(given))


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in ".-_" else "-" for c in name)


class _Ioi:
    """The parts of an IOI analysis, each from disk where it is finished."""

    def __init__(self, workspace: Workspace, study: IoiConfig) -> None:
        self.workspace, self.study, self.subject = workspace, study, workspace.subject
        self.site = self.subject.check(Site(workspace.config.layer, "resid_post"))
        self.task = self._task(study.seed)
        self.prompts = Prompts(self.task, self._task([study.seed, 1], self.task.prompts))
        self._rows: Tensor | None = None

    def _task(self, seed: int | list[int], apart: Sequence[IoiPrompt] = ()) -> IoiTask:
        return ioi_task(
            self.subject.encode,
            bos_id=self.subject.bos_id,
            pad_id=self.subject.pad_id,
            prompts=self.study.prompts,
            seed=seed,
            apart_from=apart,
        )

    def key(self, *more: Any) -> dict[str, Any]:
        """What a part's marker says: settings and versions that decide it."""
        value = [VERSION, self.workspace.config.key("text"), str(self.site), asdict(self.study), *more]
        return {"key": fingerprint(value)}

    def rows(self) -> Tensor:
        """(token, d) activations of the fit text at the site."""
        if self._rows is None:
            self._rows = self.workspace.stream[torch.from_numpy(self.workspace.fit_tokens)]
        return self._rows

    def performance(self) -> Performance:
        """How well the subject does the task; stored with its prompts."""
        place, key = self.workspace.folder / TASK, self.key("task")
        if committed(place) != key:
            found = performance(self.subject, *self.prompts)
            with publishing(place, key) as work:
                fit, held = ([one._asdict() for one in task.prompts] for task in self.prompts)
                about = {"performance": found.as_json(), "prompts": fit, "held_out": held}
                write_json(work / "task.json", about)
        require(place, "IOI task")
        return Performance(**read_json(place / "task.json")["performance"])

    def massive(self) -> Massive:
        """What massive activations have to do with it."""
        place, key = self.workspace.folder / "massive", self.key("massive")
        if committed(place) != key:
            rows = self.rows()
            mean = rows.mean(0, dtype=torch.float64).float()
            found = massive(self.subject, self.task, self.site, mean, typical_limit(ArrayRows(rows), mean))
            with publishing(place, key) as work:
                write_json(work / "massive.json", found._asdict())
        require(place, "massive activations")
        return Massive(**read_json(place / "massive.json"))

    def dictionary(self, given: Given) -> Curves:
        """The curves of a dictionary."""

        def codes() -> tuple[Codes, dict[str, Any]]:
            facts = given.about() | rebuilt(self.subject, self.task, self.site, given.basis)
            return codes_of(given.basis, given.name), facts

        return self._curves(given.name, [given.about()], codes)

    def principal(self, name: str) -> Curves:
        """The curves of principal components, as a rotation or as non-negative pairs."""

        def codes() -> tuple[Codes, dict[str, Any]]:
            rows = self.rows()
            basis = pca_basis(self.site, rows, rows.mean(0, dtype=torch.float64).float())
            made = signed_pairs(basis, name) if name == PRINCIPAL[0] else codes_of(basis, name)
            return made, dict(basis.facts)

        return self._curves(name, [], codes)

    def _curves(self, name: str, identity: list[Any], codes: Any) -> Curves:
        place, key = self.workspace.folder / BASES / _slug(name), self.key(name, identity)
        if committed(place) != key:
            made, facts = codes()
            search = _Search(self.workspace.folder / SEARCHES / f"{_slug(name)}.json", key["key"])
            with self.workspace.reporter.stage(name, "passes") as tick:
                found = run_basis(
                    self.subject,
                    self.prompts,
                    self.site,
                    made,
                    self.study,
                    facts=facts,
                    tick=tick,
                    walk=search.stored(),
                    on_walk=search.keep,
                )
            with publishing(place, key) as work:
                write_json(work / "curves.json", found.as_json())
            search.path.unlink(missing_ok=True)
        require(place, "curves")
        return Curves.from_json(read_json(place / "curves.json"), f"file {place / 'curves.json'}")

    def provenance(self, given: Sequence[Given]) -> dict[str, Any]:
        """Model, text, settings, dictionaries."""
        known = self.workspace.provenance()
        return {**known, "dictionaries": {one.name: one.about() for one in given}}


class _Search:
    """Where a search is written down every `SAVE` passes."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def stored(self) -> Walk | None:
        """How far it came earlier with the same settings. Raises `ArtefactError` for a damaged file."""
        if not self.path.exists():
            return None
        value = read_json(self.path)
        try:
            return Walk.from_json(value["walk"]) if value["key"] == self.key else None
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"file {self.path}", "a search", f"{type(error).__name__}: {error}") from error

    def keep(self, walk: Walk) -> None:
        """Write it down now and then."""
        if (walk.runs - walk.began) % SAVE == 0:
            write_json(self.path, {"key": self.key, "walk": walk.as_json()})
