"""The chapters on bases, on the IOI task and on one unit."""

from pathlib import Path
from typing import Any

from saelens_n2g.causal import case_report, ioi_result
from saelens_n2g.causal.case_report import quoted
from saelens_n2g.causal.ioi_report import in_short
from saelens_n2g.jobs.artefacts import read_format
from saelens_n2g.markdown import cell
from saelens_n2g.report.chapters import Chapter, Figure, expecting, read_text
from saelens_n2g.study.conclusions import conclusions, limits, same_size
from saelens_n2g.study.results import StudyResult
from saelens_n2g.study.table import by_layer, means, scores

STUDY_FIGURES = {
    "f1_by_layer": "F1 of the graphs by layer, with 95 % intervals; the control is the graph of another unit.",
    "differences": "Differences of F1 between bases, units matched for density and exemplars, with 95 % intervals.",
    "f1_by_density": "F1 of each unit's graph against how often the unit fires.",
    "f1_by_size": "F1 of each unit's graph against the number of its nodes.",
    "f1_by_spread": "F1 of each unit's graph against how much the residual stream varies along what the unit reads.",
    "interpretability": "Interpretability score of Cunningham et al. by basis and kind of fragments.",
    "nonzero": "Graphs from random non-zero activations (Gao et al.): recall and precision.",
}


def of_study(folder: Path, command: str) -> Chapter:
    """The chapter of a finished study of bases. Raises `ArtefactError` if there is none."""
    report = folder / "report"
    result = StudyResult.load(report / "results.json")
    return Chapter(
        name="bases",
        title="Bases side by side",
        question="Are features easier to explain than neurons?",
        command=command,
        short=3,
        said=(*conclusions(result), *(same_size(one) for one in result.equal_sizes)),
        limits=tuple(limits(result)),
        tables=(
            ("Mean scores of the graphs, all layers", means(result)),
            ("F1 by layer", by_layer(result)),
            ("Interpretability score", scores(result)),
        ),
        figures=tuple(Figure(report / name, said) for name, said in STUDY_FIGURES.items()),
        text=read_text(report / "study.md"),
        folder=report,
        data=report / "results.json",
        units=report / "index.html",
        provenance=result.provenance,
    )


def of_case(folder: Path, command: str) -> Chapter:
    """The chapter of a finished case study. Raises `ArtefactError` if there is none."""
    place = folder / "case"
    value = read_format(place / "case.json", case_report.FORMAT, case_report.VERSION)
    with expecting(place / "case.json", "a case study"):
        said, unit = _case_said(value), str(value["unit"])
    return Chapter(
        name="case",
        title=f"One unit: {unit}",
        question="What does one feature do, from the text that it fires on to the predictions that it changes?",
        command=command,
        said=said,
        limits=(
            "One unit, chosen because it goes with a pattern: it says nothing of the others.",
            "What others share looks idle when one unit is taken out.",
        ),
        tables=(),
        figures=(Figure(place / "case", f"{unit}: activations by token, and what changes without it."),),
        text=f"{read_text(place / 'case.md')}\n\n![{unit}](case.svg)",
        folder=place,
        data=place / "case.json",
        provenance=value["provenance"],
    )


def _case_said(value: dict[str, Any]) -> tuple[str, ...]:
    known, effect, strings = value["histogram"], value["ablation"], value["strings"]
    chosen = value["provenance"].get("chosen")
    said = [] if chosen is None else [f"{cell(chosen['said'][0].upper() + chosen['said'][1:])}."]

    def named(pairs: list[list[Any]]) -> str:
        return ", ".join(f"{quoted(strings[str(token)])} ({change:+.2f})" for token, change in pairs[:3])

    said += [
        f"Without it the model believes less in {named(effect['lowered'])} and more in {named(effect['raised'])}: mean "
        f"change of log-probabilities in nats at {effect['positions']:,} positions where it is strong. The token that "
        f"follows in the text changes by {effect['next_token']:+.3f}, KL {effect['kl']:.3f}.",
        f"It is above zero on {known['firing']:,} of {known['positions']:,} tokens.",
    ]
    if (behind := value["downstream"]) is not None and behind["units"]:
        index, before, change = behind["units"][0]
        said.append(
            f"Of the features at {value['later']} number {index} changes most without it: by {change:+.3g} from a mean "
            f"of {before:.3g}."
        )
    return tuple(said)


def of_ioi(folder: Path, command: str) -> Chapter:
    """The chapter of a finished IOI analysis. Raises `ArtefactError` if there is none."""
    report = folder / "report"
    value = read_format(report / "results.json", ioi_result.FORMAT, ioi_result.VERSION)
    text = read_text(report / "ioi.md")
    with expecting(report / "results.json", "an IOI analysis"):
        said, provenance = tuple(map(str, value["findings"])), value["provenance"]
    return Chapter(
        name="ioi",
        title=f"Indirect objects at {value['site']}",
        question="How few features must change for the model to change its answer?",
        command=command,
        said=said,
        short=len(said),
        limits=(
            "A set of few features is what suffices on such prompts, not what the model uses on other text.",
            "Intervals cover prompts of this one kind, not other dictionaries, layers or tasks.",
        ),
        tables=(("Share of the gap that features close, held-out prompts", in_short(text).partition("\n\n")[2]),),
        figures=(Figure(report / "ioi", "KL that is left when features take their counterfactual values, by basis."),),
        text=f"{text}\n\n![IOI](ioi.svg)",
        folder=report,
        data=report / "results.json",
        provenance=provenance,
    )
