"""The subjects of finished runs: what a unit does on texts that are in no run, for sentences that a model proposes.

    subjects = Subjects([Path("runs/demo")])
    subjects.missing(evidence) or subjects.run(evidence, ["The old harbour lay quiet."])

A unit can be run where its basis is at hand: coordinates of a site always are, dictionaries lie in the run's folder or
where it says. Directions that were fitted or drawn for a run (random, pca, ica) are not kept by it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.wording import Shot
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_json
from saelens_n2g.sites import Site

if TYPE_CHECKING:
    from saelens_n2g.bases.base import Basis
    from saelens_n2g.subject import Subject


@runtime_checkable
class Runnable(Protocol):
    """Runs new texts through units."""

    def missing(self, evidence: Evidence) -> str:
        """Why a unit cannot be run, in one line; empty if it can."""
        ...

    def identity(self, evidence: Evidence) -> Any:
        """JSON values that decide what `run` finds, beside the texts."""
        ...

    def run(self, evidence: Evidence, texts: Sequence[str]) -> list[Shot]:
        """Each text's tokens, and the unit's activations on them as shares of its maximum over the fit text, >= 0."""
        ...


class Subjects:
    """See the module. Models and dictionaries are loaded when first needed, and kept.

    Raises `ArtefactError` for runs that do not say what their subject is, `InputError` if a model is not at hand.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        self.runs = {run.name: run for run in runs}
        self._settings: dict[str, Mapping[str, Any]] = {}
        self._subjects: dict[str, Subject] = {}
        self._bases: dict[tuple[str, str, int], Basis] = {}

    def missing(self, evidence: Evidence) -> str:
        """See `Runnable.missing`."""
        if evidence.basis == "neurons":
            return ""
        place = self._dictionary(evidence)
        if place is None:
            return f"the run keeps no directions of basis {evidence.basis}, so the unit cannot be run on new texts"
        return "" if place.is_dir() else f"no dictionary at {place}, so the unit cannot be run on new texts"

    def identity(self, evidence: Evidence) -> Any:
        """See `Runnable.identity`: the subject as the run has it, and the dictionary, local files by name, size and
        time of change."""
        place = self._dictionary(evidence)
        files = [] if place is None or not place.is_dir() else sorted(p for p in place.iterdir() if p.is_file())
        return [
            dict(self._read(evidence.run).get("subject") or {}),
            None if place is None else [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files],
        ]

    def run(self, evidence: Evidence, texts: Sequence[str]) -> list[Shot]:
        """See `Runnable.run`. A text is read as the windows of the run are, behind the BOS, which is left out again;
        what does not fit into the model's context is cut off."""
        import torch

        site, index = _place(evidence)
        subject, basis = self._subject(evidence.run), self._basis(evidence, site)
        front = [] if subject.bos_id is None else [subject.bos_id]
        out = []
        for text in texts:
            ids = subject.encode(text)[: subject.n_ctx - len(front)]
            if not ids:
                continue
            rows = subject.activations(torch.tensor([[*front, *ids]]), [site])[site][0, len(front) :]
            values = basis.encode_features(rows.cpu(), torch.tensor([index]))[:, 0].double().numpy()
            strings = tuple(map(subject.string, ids))
            out.append(Shot(strings, np.maximum(values, 0.0) / evidence.max_activation))
        return out

    def _read(self, run: str) -> Mapping[str, Any]:
        """The settings that a run was made with."""
        if run not in self._settings:
            path = self.runs[run] / "report" / "results.json"
            try:
                config = dict(read_json(path)["provenance"]["config"])
                # A study has those of its subject one below; imports too.
                self._settings[run] = {**config, **config.get("run", {})}
            except (KeyError, TypeError, ValueError) as error:
                raise ArtefactError(f"file {path}", "the settings of a run", repr(error)) from error
        return self._settings[run]

    def _subject(self, run: str) -> "Subject":
        if run not in self._subjects:
            from saelens_n2g.comparison.config import SubjectConfig

            try:
                wanted = SubjectConfig(**self._read(run)["subject"])
            except (KeyError, TypeError) as error:
                raise ArtefactError(f"run {run}", "the settings of a subject", repr(error)) from error
            self._subjects[run] = wanted.load()
        return self._subjects[run]

    def _basis(self, evidence: Evidence, site: Site) -> "Basis":
        place = (evidence.run, evidence.basis, site.layer)
        if place not in self._bases:
            from saelens_n2g.bases.foreign import load_dictionary
            from saelens_n2g.bases.neurons import NeuronBasis
            from saelens_n2g.bases.sae import sae_basis

            found = self._dictionary(evidence)
            self._bases[place] = (
                NeuronBasis(site, self._subject(evidence.run).width(site))
                if found is None
                else sae_basis(site, load_dictionary(found))
            )
        return self._bases[place]

    def _dictionary(self, evidence: Evidence) -> Path | None:
        """Folder of the dictionary that a basis is; None for what is none."""
        settings, run = self._read(evidence.run), self.runs[evidence.run]
        site, _ = _place(evidence)
        if evidence.basis == "sae":
            given = settings.get("dictionary")
            return Path(given) if given else run / "dictionary" / "sae"
        several = settings.get("dictionaries") or {}
        if evidence.basis not in several:
            return None
        if isinstance(given := several[evidence.basis], str):
            return Path(given.replace("{layer}", str(site.layer)))
        from saelens_n2g.study.dictionaries import trained_place

        return trained_place(run, len(settings["layers"]), site, evidence.basis)


def _place(evidence: Evidence) -> tuple[Site, int]:
    site, _, index = evidence.name.split("/")
    return Site.parse(site), int(index)
