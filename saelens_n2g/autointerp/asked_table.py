"""What scorers found of sentences, as rows of tables: beside controls, with the verdict."""

from saelens_n2g.autointerp.controls import NEUTRAL, OTHER
from saelens_n2g.autointerp.results import Interpretation, Way
from saelens_n2g.comparison.table import estimate, number
from saelens_n2g.scoring import Summary, summarise

HEAD = ("Asked", "Units", "Balanced accuracy", "F1", "AUC", "AUC, neutral", "AUC, other", "Controls")


def rows(result: Interpretation) -> list[list[str]]:
    """One row for each explainer and scorer."""
    out = []
    for way, several in result.asked.items():
        scored = sum(one.answers is not None for one in several)
        values = [estimate(_summary(result, way, metric)) for metric in ("balanced_accuracy", "f1", "auc")]
        values += [number(_summary(result, way, "auc", name).mean) for name in (NEUTRAL, OTHER)]
        verdict = result.asked_validity(way).verdict
        out.append([way.label, f"{scored} / {len(several)}", *values, verdict])
    return out


def _summary(result: Interpretation, way: Way, metric: str, control: str | None = None) -> Summary:
    return summarise([one.value(metric, control) for one in result.asked[way]], seed=result.seed)
