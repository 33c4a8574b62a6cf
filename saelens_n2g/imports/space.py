"""Space: a workspace whose evidence are published texts, and a fitter that fits to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from saelens_n2g.activations import on_grid
from saelens_n2g.bases.base import Basis
from saelens_n2g.bases.foreign import checksums, load_dictionary
from saelens_n2g.bases.registry import BasisInputs, basis_kind
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.comparison.fitting import Fitter
from saelens_n2g.comparison.selection import CHUNK, Unit
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.evidence import Evidence
from saelens_n2g.imports.config import ImportConfig
from saelens_n2g.imports.gather import FileFacts
from saelens_n2g.progress import Reporter
from saelens_n2g.provenance import provenance
from saelens_n2g.sites import Site


class Space(Workspace):
    """The folder of an import and what lies in it; the subject, and where graphs are scored on it the user's text."""

    def __init__(self, config: ImportConfig, folder: Path, reporter: Reporter, files: Sequence[FileFacts]) -> None:
        super().__init__(config.run, folder, reporter)
        self.imported, self.files = config, tuple(files)

    def provenance(self) -> dict[str, Any]:
        """Subject, files, the text that is scored on, settings, versions."""
        read = [{"name": f.name, "sha256": f.sha256, "format": f.format} for f in self.files if f.format]
        corpus: dict[str, Any] = {"source": "import", "files": read, "scored_on": None}
        if self.imported.scored:
            windows = self.windows
            corpus["scored_on"] = {
                "source": windows.source,
                "fingerprint": windows.fingerprint(),
                "windows": len(windows),
                "tokens": windows.n_tokens,
            }
        return provenance(subject=self.subject.describe(), corpus=corpus, config=self.imported.as_json())

    def dictionary_files(self) -> dict[str, str]:
        """SHA-256 of the dictionary's files; empty for neurons."""
        return {} if self.config.dictionary is None else checksums(Path(self.config.dictionary))

    def basis(self, site: Site) -> Basis:
        """What the units at `site` belong to. Raises `InputError` for a dictionary of another site or width."""
        width = self.subject.width(self.subject.check(site))
        if self.imported.basis == "neurons":
            return basis_kind("neurons").build(BasisInputs(site, width))
        if self.config.dictionary is None:
            raise InputError("basis sae", "--dictionary, the one that the units are features of", "none")
        dictionary = load_dictionary(Path(self.config.dictionary))
        if dictionary.d_in != width:
            raise InputError(
                f"dictionary {self.config.dictionary}", f"d_in {width} ({site})", f"d_in {dictionary.d_in}"
            )
        return sae_basis(site, dictionary)

    def on_text(self, basis: Basis, indices: Sequence[int]) -> Mapping[int, Float[np.ndarray, "window pos"]]:
        """What units do on the text that is scored on: one pass of the subject for all of a layer."""
        site, order = basis.site, sorted(indices)
        neurons = basis.name == "neurons"
        rows = torch.from_numpy(self.harvest({site: order if neurons else None}).rows(site))
        wanted = torch.tensor(order)
        parts = [chunk.relu() if neurons else basis.encode_features(chunk, wanted) for chunk in rows.split(CHUNK)]
        grid = on_grid(torch.cat(parts).numpy(), self.windows)
        return {index: grid[..., at] for at, index in enumerate(order)}


class PublishedFitter(Fitter):
    """Fits to exemplars alone: there is no other text of which the units' activations were published."""

    def evidence(self, unit: Unit) -> Evidence:
        """The unit's fit texts."""
        return Evidence(unit.statistics.max_activation, unit.exemplars.fit)
