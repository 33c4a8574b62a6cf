"""The work of a run: units of one basis and layer explained and scored, every answer kept in a file of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from saelens_n2g.autointerp import explainers, simulators
from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.config import VERSION, InterpretConfig
from saelens_n2g.autointerp.controls import NEUTRAL, OTHER
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import Explained
from saelens_n2g.autointerp.judge import Judged, judge
from saelens_n2g.autointerp.kept import answer, file_of, keep, known, understood
from saelens_n2g.autointerp.predictors import Failure, Predictor, TokenCounts, own_predictor, predictors, summed
from saelens_n2g.autointerp.records import FAILED, SCORED, SILENT, about
from saelens_n2g.autointerp.results import Interpretation, Outcome, Sentence, Way, outcome_from
from saelens_n2g.autointerp.revision import Revised
from saelens_n2g.autointerp.simulators import SentencePredictor, Simulator
from saelens_n2g.autointerp.subjects import Runnable
from saelens_n2g.autointerp.told import Telling
from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.scoring import cycle

Tick = Callable[[], None]


@dataclass(frozen=True, eq=False)
class Given:
    """What a way has to say of one unit: a predictor, or the status of a unit without one."""

    predictor: Predictor | Failure
    identity: Any = None
    """JSON values that decide it."""
    status: str = SILENT


class Work:
    """Explains and scores units, group by group; with an asker that is dry, what asks alone, and nothing is kept.

    Raises `InputError` for explainers, simulators and scorers that cannot be.
    """

    def __init__(
        self, config: InterpretConfig, folder: Path, asker: Asker | None = None, subject: Runnable | None = None
    ) -> None:
        """subject: runs units on texts that a model proposes."""
        self.config, self.folder, self.subject = config, folder, subject
        self.dry = asker is not None and asker.dry
        own = [name for name in config.simulators if name in predictors()]
        self.readers: dict[str, Simulator] = {
            name: simulators.SIMULATORS.make(name, config.options.get(name), asker)
            for name in config.simulators
            if name not in own and (not self.dry or name in simulators.SIMULATORS.asking)
        }
        own = [] if self.dry else own
        self.writers = {
            name: explainers.EXPLAINERS.make(name, config.options.get(name), asker) for name in config.explainers
        }
        self.writers |= {n: self._revising(one) for n, one in self.writers.items() if isinstance(one, Revised)}
        self.telling = Telling(config, folder, asker)
        self._said: dict[str, list[Explained]] = {}
        read = [Way(reader, writer) for writer in self.writers for reader in self.readers]
        self.outcomes: dict[Way, list[Outcome]] = {way: [] for way in [*map(Way, own), *read]}
        self.sentences: dict[str, list[Sentence]] = {name: [] for name in self.writers}
        if not self.outcomes and not self.dry:
            raise InputError("simulators", "a predictor, or an explainer for the simulators", "neither")

    def group(self, units: Sequence[Evidence], tick: Tick) -> None:
        """Explain and score the units of one basis and layer, each other's controls. `tick` is called for every
        unit that an explainer is done with, and for every one that is scored: `steps` times."""
        self._said = {}
        said = {name: self._explained(name, units, tick) for name in self.writers}
        for writer, explained in said.items():
            self.sentences[writer] += [
                Sentence(**about(u), text=e.text, status=e.status, reason=e.reason, costs=e.costs)
                for u, e in zip(units, explained, strict=True)
            ]
        self.telling.group(units, said)
        neutral = _neutrals(units)
        given = {way: self._given(way, units, said) for way in self.outcomes}
        donors = {way: _donors(several, [self.config.seed, 7, units[0].layer]) for way, several in given.items()}
        for place, unit in enumerate(units):
            for way, several in given.items():
                controls = {
                    NEUTRAL: neutral[place] if way.explainer is None else self._sentence(way, simulators.NEUTRAL)
                }
                other = donors[way].get(place)
                if other is not None:
                    controls[OTHER] = several[other]
                name = None if other is None else units[other].name
                self.outcomes[way].append(self._outcome(way, unit, several[place], controls, name))
            tick()

    def steps(self, units: int) -> int:
        """How often `group` calls its `tick` over so many units."""
        return units * (1 + len(self.writers))

    def result(self, provenance: Mapping[str, Any]) -> Interpretation:
        """All that was found."""
        made: dict[str, Any] = {**self.writers, **self.readers, **self.telling.scorers}
        return Interpretation(
            outcomes={way: tuple(several) for way, several in self.outcomes.items()},
            sentences={name: tuple(several) for name, several in self.sentences.items()},
            config=self.config.as_json(),
            settings={name: dict(one.settings) for name, one in made.items()},
            provenance=provenance,
            asked={way: tuple(several) for way, several in self.telling.asked.items()},
        )

    def _revising(self, writer: Revised) -> Revised:
        """The same, of the first explainer as this run has it. Raises `InputError` if it has not."""
        first = self.writers.get(writer.first.name)
        if first is None:
            expected = f"its first explainer {writer.first.name} beside it, for the scores before"
            raise InputError("explainer 'revised'", expected, ", ".join(self.writers))
        return replace(writer, first=first, subject=self.subject)

    # --- what is said ---------------------------------------------------------------------------------------------

    def _explained(self, name: str, units: Sequence[Evidence], tick: Tick) -> list[Explained]:
        """What an explainer says of the units of a group: asked once, though `revised` wants its first explainer's."""
        if name not in self._said:
            self._said[name] = self._says(name, units, tick)
        return self._said[name]

    def _says(self, name: str, units: Sequence[Evidence], tick: Tick) -> list[Explained]:
        """The same out of their files, or now, all that is wanting at once."""
        writer, before = self.writers[name], list[Explained]()
        decides: list[list[Any]] = [
            [VERSION, name, dict(writer.settings), unit.checksum, unit.threshold, self._cut()] for unit in units
        ]
        if isinstance(writer, Revised):
            before = self._explained(writer.first.name, units, tick)
            more = [[said.text, writer.decides(unit)] for said, unit in zip(before, units, strict=True)]
            decides = [[*one, *two] for one, two in zip(decides, more, strict=True)]
        keys = [fingerprint(one) for one in decides]
        paths = [file_of(self.folder / "explanations" / name, unit) for unit in units]
        stored = [known(path, key) for path, key in zip(paths, keys, strict=True)]
        read = [
            None if one is None else understood(path, lambda value: Explained(**value), one)
            for path, one in zip(paths, stored, strict=True)
        ]
        found = {at: one for at, one in enumerate(read) if one is not None and one.status != FAILED}
        for _ in found:
            tick()
        wanting = [at for at in range(len(units)) if at not in found]
        some = [units[at] for at in wanting]

        def got(place: int, one: Explained) -> None:
            at = wanting[place]
            found[at] = one
            if not self.dry:
                keep(paths[at], keys[at], asdict(one))
            tick()

        if isinstance(writer, Revised):
            writer.revise(some, [before[at] for at in wanting], got)
        else:
            explainers.explain_all(writer, some, got)
        return [found[at] for at in range(len(units))]

    def _cut(self) -> Any:
        return asdict(self.config.reading)

    def _given(self, way: Way, units: Sequence[Evidence], said: Mapping[str, Sequence[Explained]]) -> list[Given]:
        """What a way has to say of each unit."""
        if way.explainer is None:
            return [_own(way.simulator, unit) for unit in units]
        return [
            Given(Failure(one.reason), status=one.status) if one.text is None else self._sentence(way, one.text)
            for one in said[way.explainer]
        ]

    def _sentence(self, way: Way, text: str) -> Given:
        reader = self.readers[way.simulator]
        return Given(SentencePredictor(text, reader), [text, dict(reader.settings)])

    # --- what it is worth -----------------------------------------------------------------------------------------

    def _outcome(
        self, way: Way, unit: Evidence, given: Given, controls: Mapping[str, Given], other: str | None
    ) -> Outcome:
        """Scores of a unit and its controls: out of their file, or now."""
        if isinstance(given.predictor, Failure):
            return Outcome(**about(unit), status=given.status, reason=given.predictor.reason)
        decided = {name: one.identity for name, one in {"own": given, **controls}.items()}
        rules = asdict(self.config.rules)
        decides = [VERSION, way.label, unit.checksum, unit.threshold, self._cut(), rules, decided, other]
        key = fingerprint(decides)
        path = file_of(self.folder / "scores" / way.label.replace(" > ", "+"), unit)
        predictor = given.predictor
        return answer(
            path, key, outcome_from, lambda: self._scored(unit, predictor, controls, other), store=not self.dry
        )

    def _scored(
        self, unit: Evidence, predictor: Predictor, controls: Mapping[str, Given], other: str | None
    ) -> Outcome:
        """Now. The controls of what has no score are not asked for."""
        own = judge(predictor, unit, self.config.rules)
        if isinstance(own, Failure):
            return Outcome(**about(unit), status=FAILED if own.again else SILENT, reason=own.reason)
        beside: dict[str, Judged | str] = {}
        for name, one in controls.items():
            if not isinstance(one.predictor, Failure):
                found = judge(one.predictor, unit, self.config.rules)
                beside[name] = found.reason if isinstance(found, Failure) else found._replace(shuffled={})
        judged = [own, *(one for one in beside.values() if isinstance(one, Judged))]
        costs = summed(one.costs for one in judged)
        return Outcome(**about(unit), status=SCORED, judged=own, controls=beside, other=other, costs=costs)


def _own(name: str, unit: Evidence) -> Given:
    """The unit's own predictor that needs no sentence."""
    try:
        return Given(own_predictor(name, unit), [name, unit.checksum])
    except UnitError as error:
        return Given(Failure(str(error)))


def _neutrals(units: Sequence[Evidence]) -> list[Given]:
    """Per unit the mean activation of each token over the other units: what is true of a token whichever unit it is."""
    counts = [TokenCounts.of(unit.of("fit")) for unit in units]
    if len(units) < 2:
        return [Given(Failure("no other unit")) for _ in units]
    everything = TokenCounts.joined(counts)
    return [
        Given(everything.without(own).means(), ["token means", *(u.checksum for u in units if u is not unit)])
        for own, unit in zip(counts, units, strict=True)
    ]


def _donors(given: Sequence[Given], seed: Sequence[int]) -> dict[int, int]:
    """Place of a unit that has a predictor -> place of the unit whose predictor is its control."""
    able = [place for place, one in enumerate(given) if not isinstance(one.predictor, Failure)]
    return {able[a]: able[b] for a, b in enumerate(cycle(len(able), seed))}
