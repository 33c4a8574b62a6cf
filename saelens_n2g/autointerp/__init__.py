"""Explain, simulate, score: sentences beside graphs and tables of counts, after Bills et al. 2023.

One idea carries it: an explanation is anything that predicts activations. A graph predicts by itself, a table of counts
too; a sentence does with a *simulator*, which reads it and says how much the unit fires on each token. All of them are
scored by one code on the same excerpts, beside controls that know nothing of the unit.

    excerpts      what a unit does on pieces of text, and which pieces are for what
    predictors    what predicts them: graphs, tables of counts, sentences with a simulator
    simulators    the registry of what reads sentences; `quoted` needs no model, `embedding` an encoder
    explainers    the registry of what writes them; `templated` needs no model
    scorers       the registry of what tells excerpts apart by the sentence alone
    calibration   from what is predicted to what is so
    scores        of tokens; `detection` of whole excerpts and of highlights
    controls      what a prediction has to beat, and whether it does
    puzzles       units that were made up, whose explanation is known
    run           all of it over the units of finished runs
"""
