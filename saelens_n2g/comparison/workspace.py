"""Workspace: a run's folder and what lies in it. Loads what is there, makes what is not, each thing once.

folder/text/          token windows            folder/bases/NAME/   units of one basis, explained and scored
folder/activations/   shards, removed at the end   folder/report/   tables, figure, page
folder/dictionary/    the trained SAE              folder/stages/   which stage is finished, for which settings
"""

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saelens_n2g.activations import ActivationStore, harvest
from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.causal.effects import final_streams
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.comparison.scores import TextScores
from saelens_n2g.comparison.vocabulary import Vocabulary
from saelens_n2g.corpus import Windows, load_documents, split_documents, tokenise
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.evidence import FitText
from saelens_n2g.graphs.masked_lm import augmenter_for
from saelens_n2g.graphs.methods import augments
from saelens_n2g.graphs.oracle import Augmenter
from saelens_n2g.graphs.vocabulary import Neighbours
from saelens_n2g.jobs.artefacts import ensure_folder, read_json, write_json
from saelens_n2g.progress import Reporter
from saelens_n2g.provenance import provenance
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject


class Workspace:
    """One run: its settings, its folder, and the stages every command shares."""

    def __init__(self, config: RunConfig, folder: Path, reporter: Reporter) -> None:
        self.config, self.folder, self.reporter = config, ensure_folder(folder), reporter

    def finished(self, stage: str, basis: str | None = None) -> bool:
        """Whether `stage` ended earlier with the same settings.

        The record of other settings is removed: what it vouches for is about to be replaced, and must not be taken
        for theirs if they come back before this run has recorded its own.
        """
        path = self._marker(stage, basis)
        if not path.exists():
            return False
        if read_json(path) == {"key": self.config.key(stage, basis)}:
            return True
        path.unlink()
        return False

    def finish(self, stage: str, basis: str | None = None) -> None:
        """Record that `stage` has ended; call when its artefacts are published."""
        write_json(self._marker(stage, basis), {"key": self.config.key(stage, basis)})

    def _marker(self, stage: str, basis: str | None) -> Path:
        return self.folder / "stages" / f"{stage if basis is None else f'{stage}-{basis}'}.json"

    @cached_property
    def subject(self) -> Subject:
        """The model, loaded when first needed; its sites are checked at once."""
        wanted = self.config.subject
        with self.reporter.stage(f"load {wanted.model}"):
            subject = wanted.load()
        for basis in self.config.bases:
            subject.check(self.config.site(basis))
        if self.config.text.width > subject.n_ctx:
            raise InputError("option width", f"at most {subject.n_ctx} ({wanted.model})", str(self.config.text.width))
        return subject

    @cached_property
    def windows(self) -> Windows:
        """The text as token windows."""
        folder, text = self.folder / "text", self.config.text
        if self.finished("text"):
            return Windows.load(folder)
        subject = self.subject
        with self.reporter.stage(f"read {text.corpus}", "tokens") as tick:
            windows = tokenise(
                load_documents(text.corpus),
                subject.encode,
                width=text.width,
                bos_id=subject.bos_id,
                pad_id=subject.pad_id,
                max_tokens=text.read,
                source=text.corpus,
                report=lambda tokens: tick(tokens, tokens),
            )
        windows = draw_windows(windows, text.tokens, self.config.seed)
        windows.save(folder)
        self.finish("text")
        return windows

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the fit windows and of the test windows."""
        return split_documents(self.windows, test_share=self.config.text.test_share, seed=self.config.seed)

    @cached_property
    def texts(self) -> TextScores:
        """The fit text counted and the test text, to score units on."""
        return TextScores(self.windows, *self.split, self.subject.string)

    @cached_property
    def fit_text(self) -> FitText:
        """The fit documents, for methods that read them; rows are those of `split`."""
        fit = self.windows.subset(self.split[0])
        return FitText(fit.tokens, fit.mask)

    @cached_property
    def neighbours(self) -> Neighbours:
        """Which tokens are near to which, for methods that try others in a token's place."""
        return Neighbours(self.subject.embeddings().numpy(), exclude=self.subject.tokenizer.all_special_ids)

    @cached_property
    def final_streams(self) -> torch.Tensor:
        """(position, d_model) some final residual streams of the fit text, about which logit effects are taken."""
        return final_streams(self.subject, self.windows.subset(self.split[0]), seed=self.config.seed)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The subject on every token by itself, for methods that read that."""
        return Vocabulary(self.subject)

    @cached_property
    def fit_tokens(self) -> np.ndarray:
        """Bool per scored token: whether its document is one of the fit documents."""
        fit = np.zeros(len(self.windows), dtype=bool)
        fit[self.split[0]] = True
        mask = self.windows.mask
        return np.repeat(fit, mask.sum(axis=1))

    def neuron_columns(self, width: int) -> list[int]:
        """The candidates among the neurons, ascending: the only ones whose activations are kept."""
        return sorted(int(i) for i in self.config.rule.candidates(width))

    def columns(self) -> dict[Site, Sequence[int] | None]:
        """What the store keeps: per site of the settings the coordinates, None for all."""
        columns: dict[Site, Sequence[int] | None] = {}
        for basis in self.config.bases:
            site = self.config.site(basis)
            columns[site] = self.neuron_columns(self.subject.width(site)) if basis == "neurons" else None
        return columns

    @cached_property
    def store(self) -> ActivationStore:
        """Activations of the whole text at every site of the settings."""
        return self.harvest(self.columns())

    def store_for(self, several: Sequence[RunConfig]) -> None:
        """Make `store` hold the sites of several settings, in one pass of the subject to the deepest of them."""
        columns: dict[Site, Sequence[int] | None] = {}
        for config in several:
            columns |= self.under(config).columns()
        vars(self)["store"] = self.harvest(columns)

    def harvest(self, columns: dict[Site, Sequence[int] | None]) -> ActivationStore:
        """One pass of the subject over the text."""
        subject, windows = self.subject, self.windows
        title = f"activations at {', '.join(map(str, columns))}"
        with self.reporter.stage(title, "windows") as tick:
            return harvest(subject, windows, columns, self.folder / "activations", report=tick)

    @cached_property
    def stream(self) -> torch.Tensor:
        """(scored token, d) activations of the residual stream, all windows."""
        return torch.from_numpy(self.store.rows(Site(self.config.layer, self.config.stream)))

    @cached_property
    def neurons(self) -> np.ndarray:
        """(scored token, candidate) activations of the candidate neurons, signed; columns as `neuron_columns`."""
        return self.store.rows(self.config.site("neurons"))

    @property
    def augmenter(self) -> Augmenter | None:
        """Who proposes substitutes, as the settings say; None where there is no augmentation."""
        return self._augmenter if augments(self.config.method_options) else None

    @cached_property
    def _augmenter(self) -> Augmenter | None:
        return augmenter_for(self.config.augmenter, self.subject, report=self.reporter.note)

    def under(self, config: RunConfig) -> "Workspace":
        """The same folder and text under other settings; what is loaded and does not depend on them is shared.

        The settings may differ in what comes after the activations: layer, sites (if the store holds them), method.
        """
        assert config.key("text") == self.config.key("text"), "another text"
        other = Workspace(config, self.folder, self.reporter)
        shared = {"subject", "windows", "split", "fit_tokens", "store", "texts", "fit_text", "neighbours", "vocabulary"}
        shared.add("final_streams")
        if config.augmenter == self.config.augmenter:
            shared.add("_augmenter")
        if all(getattr(config, name) == getattr(self.config, name) for name in ("layer", "stream", "neurons", "rule")):
            shared |= {"stream", "neurons"}
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name in shared})
        return other

    def load(self, *names: str) -> None:
        """Have parts of this workspace loaded or made now: before they are shared, or under bars of their own."""
        for name in names:
            getattr(self, name)

    def metadata(self, site: Site) -> SaeMetadata:
        """What a dictionary at `site` is trained on."""
        config = self.config
        return SaeMetadata(
            model_name=config.subject.model,
            hook_name=site.hook,
            context_size=config.text.width,
            prepend_bos=self.subject.bos_id is not None,
            dataset_path=config.text.corpus,
            extra={"provenance": self.provenance()},
        )

    def provenance(self) -> dict[str, Any]:
        """Subject, text, settings, versions."""
        fit, test = self.split
        windows = self.windows
        corpus = {
            "source": windows.source,
            "fingerprint": windows.fingerprint(),
            "documents": len(set(windows.document.tolist())),
            "windows": len(windows),
            "tokens": windows.n_tokens,
            "fit_tokens": int(windows.subset(fit).n_tokens),
            "test_tokens": int(windows.subset(test).n_tokens),
        }
        return provenance(subject=self.subject.describe(), corpus=corpus, config=self.config.as_json())

    def discard_activations(self) -> None:
        """Remove the harvested activations, by far the largest thing in the folder, once nothing needs them."""
        for name in ("store", "stream", "neurons", "vocabulary"):
            self.__dict__.pop(name, None)
        if (self.folder / "activations").exists():
            shutil.rmtree(self.folder / "activations")


def draw_windows(windows: Windows, tokens: int, seed: int) -> Windows:
    """Windows drawn at random until they hold `tokens` scored tokens, in their old order; all if there are fewer."""
    if windows.n_tokens <= tokens:
        return windows
    order = np.random.default_rng([seed, 1]).permutation(len(windows))
    sizes = windows.mask.sum(axis=1)[order].cumsum()
    return windows.subset(np.sort(order[: int(np.searchsorted(sizes, tokens)) + 1]))
