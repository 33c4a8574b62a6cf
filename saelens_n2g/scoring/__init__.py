"""Scores: how well an explanation predicts where a unit fires, and how sure a mean over units is.

    scores = evaluate(graph, rows, actual)                    # one unit: precision, recall, F1, firing and quiet
    graded = evaluate_graded(graph, rows, actual)             # one unit: AUPRC and correlation, without a threshold
    summary = summarise([s.f1 for s in per_unit], seed=0)     # many units: mean with its 95 % interval
    means = summarise_counts(counts, seed=0)                  # metric -> the mean over units, and of pooled counts
    versus = compare_paired(f1_of_a, f1_of_b, seed=0)         # the same units twice: interval, p-value, shares

The protocol is that of Foote et al. 2023 (section 4): both sides are normalised by the unit's maximum, a token
fires at half of it or more, and the tokens of all texts of a unit are pooled before anything is divided.

What cannot be said is None, never 0, 1 or NaN (and AUPRC, correlation, means and tests of values that are NaN or
infinite raise `InputError`):

    ===========  ==========================  ==========================================================
    score        value                       None where
    ===========  ==========================  ==========================================================
    precision    tp / (tp + fp)              nothing is predicted
    recall       tp / (tp + fn)              nothing fires
    F1           2 tp / (2 tp + fp + fn)     neither fires nor is predicted anything
    AUPRC        average precision           nothing fires, or there is no token
    correlation  Pearson's r                 a side is the same on all tokens, or there are less than two
    mean         of the defined values       no unit defines it
    micro mean   of pooled counts            no unit defines it
    difference   mean of a - b               no unit defines both
    p-value      of sign flips               no unit defines both
    effect       mean / deviation of a - b   less than two units define both, or a - b is the same for all
    ===========  ==========================  ==========================================================

So F1 is 0 where something fires and nothing is predicted. The `quiet_` scores are the same with the non-firing
tokens as the class that is looked for. The other cases at the edge:

    =========================================  ================================================================
    case                                       value
    =========================================  ================================================================
    the same predicted everywhere (nothing)    AUPRC is the share of tokens that fire, what chance gives;
                                               correlation is None, so a mean of it leaves the silent out: say n
    everything fires                           AUPRC 1, correlation as ever
    one unit                                   its value, which is its interval too; the p-value is 1
    a and b equal on all units                 difference 0, p-value 1, all units `equal`
    n units that differ, all to one side       p-value 2 / 2**n, the least that n units can give
    =========================================  ================================================================
"""

from saelens_n2g.scoring.counts import Confusion as Confusion
from saelens_n2g.scoring.counts import FiringScores as FiringScores
from saelens_n2g.scoring.counts import confusion as confusion
from saelens_n2g.scoring.counts import count_firing as count_firing
from saelens_n2g.scoring.counts import evaluate as evaluate
from saelens_n2g.scoring.counts import firing as firing
from saelens_n2g.scoring.graded import GradedScores as GradedScores
from saelens_n2g.scoring.graded import Tokens as Tokens
from saelens_n2g.scoring.graded import WindowSets as WindowSets
from saelens_n2g.scoring.graded import average_precision as average_precision
from saelens_n2g.scoring.graded import correlation as correlation
from saelens_n2g.scoring.graded import evaluate_correlation as evaluate_correlation
from saelens_n2g.scoring.graded import evaluate_graded as evaluate_graded
from saelens_n2g.scoring.graded import pooled as pooled
from saelens_n2g.scoring.graded import window_sets as window_sets
from saelens_n2g.scoring.means import Averages as Averages
from saelens_n2g.scoring.means import Summary as Summary
from saelens_n2g.scoring.means import share_at_least as share_at_least
from saelens_n2g.scoring.means import summarise as summarise
from saelens_n2g.scoring.means import summarise_counts as summarise_counts
from saelens_n2g.scoring.means import summarise_ratio as summarise_ratio
from saelens_n2g.scoring.pairs import PairedComparison as PairedComparison
from saelens_n2g.scoring.pairs import SignFlip as SignFlip
from saelens_n2g.scoring.pairs import compare_paired as compare_paired
from saelens_n2g.scoring.pairs import cycle as cycle
from saelens_n2g.scoring.pairs import paired_difference as paired_difference
from saelens_n2g.scoring.pairs import sign_flip as sign_flip
