"""The study: are features easier to explain than neurons? Bases side by side over layers, matched, with controls.

    result = run_study(StudyConfig(layers=(0, 1, 3)), Path("runs/study"), Reporter())

`config` says what is asked, `run` does it in stages, `cell` is one basis of one layer, `results` what is kept;
`matching`, `means` and `conclusions` say what follows from the units, `table`, `figure` and `page` show it.
"""
