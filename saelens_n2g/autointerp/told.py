"""The part of a run's work that scorers do: every sentence of every explainer, beside its controls, kept by unit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from saelens_n2g.autointerp import simulators
from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.config import VERSION, InterpretConfig
from saelens_n2g.autointerp.controls import NEUTRAL, OTHER
from saelens_n2g.autointerp.detection import Answers
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import Explained
from saelens_n2g.autointerp.kept import answer, file_of
from saelens_n2g.autointerp.predictors import Failure, summed
from saelens_n2g.autointerp.records import FAILED, SCORED, SILENT, about
from saelens_n2g.autointerp.results import Way
from saelens_n2g.autointerp.scorers import SCORERS, Asked, Scorer, asked_from
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.scoring import cycle


class Telling:
    """Scores sentences by asking. Raises `InputError` for scorers that cannot be."""

    def __init__(self, config: InterpretConfig, folder: Path, asker: Asker | None) -> None:
        self.config, self.folder = config, folder
        self.dry = asker is not None and asker.dry
        self.scorers: dict[str, Scorer] = {
            name: SCORERS.make(name, config.options.get(name), asker)
            for name in config.scorers
            if not self.dry or name in SCORERS.asking
        }
        ways = [Way(scorer, writer) for writer in config.explainers for scorer in self.scorers]
        self.asked: dict[Way, list[Asked]] = {way: [] for way in ways}

    def group(self, units: Sequence[Evidence], said: Mapping[str, Sequence[Explained]]) -> None:
        """Score what was said of the units of one basis and layer, which are each other's controls."""
        for way, found in self.asked.items():
            sentences = said[str(way.explainer)]
            able = [place for place, one in enumerate(sentences) if one.text is not None]
            order = cycle(len(able), [self.config.seed, 7, units[0].layer])
            donors = {able[a]: able[b] for a, b in enumerate(order)}
            for place, (unit, one) in enumerate(zip(units, sentences, strict=True)):
                other = donors.get(place)
                texts = {NEUTRAL: simulators.NEUTRAL}
                if other is not None:
                    texts[OTHER] = str(sentences[other].text)
                found.append(self._asked(way, unit, one, texts, None if other is None else units[other].name))

    def _asked(
        self, way: Way, unit: Evidence, said: Explained, controls: Mapping[str, str], other: str | None
    ) -> Asked:
        """A unit's sentence and its controls: out of their file, or now."""
        if said.text is None:
            return Asked(**about(unit), status=said.status, reason=said.reason)
        settings = dict(self.scorers[way.simulator].settings)
        cut, rules = asdict(self.config.reading), asdict(self.config.rules)
        decided = [settings, said.text, dict(controls), other]
        key = fingerprint([VERSION, way.label, unit.checksum, unit.threshold, cut, rules, decided])
        path = file_of(self.folder / "asked" / way.label.replace(" > ", "+"), unit)
        scorer, text = self.scorers[way.simulator], said.text
        return answer(path, key, asked_from, lambda: self._now(scorer, unit, text, controls, other), store=not self.dry)

    def _now(self, scorer: Scorer, unit: Evidence, text: str, controls: Mapping[str, str], other: str | None) -> Asked:
        """The controls of what has no score are not asked for."""
        own = scorer.score(text, unit, self.config.rules)
        if isinstance(own, Failure):
            return Asked(**about(unit), status=FAILED if own.again else SILENT, reason=own.reason)
        beside: dict[str, Answers | str] = {}
        costs = [own.costs]
        for name, sentence in controls.items():
            found = scorer.score(sentence, unit, self.config.rules)
            beside[name] = found.reason if isinstance(found, Failure) else found.answers
            costs += [] if isinstance(found, Failure) else [found.costs]
        spent = summed(costs)
        return Asked(**about(unit), status=SCORED, answers=own.answers, controls=beside, other=other, costs=spent)
