"""Imports: exemplars that others have published come in, so that graphs can be fitted on data not made here.

    files -> published units -> token ids of the subject -> fit and test windows -> checked against the model -> graphs

A format is one file of this folder that registers itself (`formats.py`) and is recognised by what is in a file.
"""
