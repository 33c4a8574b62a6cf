"""Space: a workspace whose evidence are published texts, and a fitter that fits to them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from saelens_n2g.causal.effects import final_streams
from saelens_n2g.comparison.fitting import Fitter
from saelens_n2g.comparison.selection import CHUNK, Unit
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.exemplars import Exemplar
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

    def take_streams(self, texts: Iterable[Sequence[Exemplar]]) -> None:
        """Take logit effects about the final streams of published `texts`, a layer's units' own: there need be no other
        text."""
        rows = [one.tokens for several in texts for one in several]
        vars(self)["final_streams"] = final_streams(self.subject, self._windows_of(rows), seed=self.config.seed)

    def _windows_of(self, rows: Sequence[Sequence[int]]) -> Windows:
        bos, pad = self.subject.bos_id, self.subject.pad_id
        front = [] if bos is None else [bos]
        lengths = np.array([len(front) + len(row) for row in rows], dtype=np.int32)
        tokens = np.full((len(rows), int(lengths.max())), pad, dtype=np.int32)
        for i, row in enumerate(rows):
            tokens[i, : lengths[i]] = [*front, *row]
        return Windows(tokens, lengths, np.zeros_like(lengths), ("published",), bos, "import")

    def on_text(self, basis: Basis, indices: Sequence[int]) -> "OnText":
        """What units of a layer do on the text that is scored on: one pass of the subject for all of them."""
        neurons = basis.name == "neurons"
        columns = {index: at for at, index in enumerate(sorted(indices))} if neurons else None
        store = self.harvest({basis.site: None if columns is None else list(columns)})
        return OnText(self.windows, basis, store.mapped(basis.site), columns)


@dataclass(frozen=True, eq=False)
class OnText:
    """Activations of a text on disk; only those of the units that are asked for come into memory."""

    windows: Windows
    basis: Basis
    shards: Sequence[Float[torch.Tensor, "token kept"]]
    columns: Mapping[int, int] | None
    """Neuron -> column of the shards; None where they hold the whole vector."""

    def of(self, indices: Sequence[int]) -> dict[int, Float[np.ndarray, "window pos"]]:
        """Per unit its activation on every position, zero where nothing is scored."""
        wanted = torch.tensor(list(indices))
        if self.columns is None:
            chunks = (chunk.float() for shard in self.shards for chunk in shard.split(CHUNK))
            parts = [self.basis.encode_features(chunk, wanted) for chunk in chunks]
        else:
            picked = torch.tensor([self.columns[index] for index in indices])
            parts = [shard[:, picked].float().relu() for shard in self.shards]
        grid = on_grid(torch.cat(parts).numpy(), self.windows)
        return {index: grid[..., at] for at, index in enumerate(indices)}


class PublishedFitter(Fitter):
    """Fits to exemplars alone: there is no other text of which the units' activations were published."""

    def evidence(self, unit: Unit) -> Evidence:
        """The unit's fit texts."""
        return Evidence(unit.statistics.max_activation, unit.exemplars.fit)
