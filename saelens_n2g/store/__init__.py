"""The store: everything that is known of every unit, in one SQLite file that pages and the API read.

    with Writer(Path("atlas.db")) as writer:
        collect(Path("runs/demo"), writer)
    with Store.open(Path("atlas.db")) as store:
        store.search("any:the and not layer=0")
        Matcher(store).match("embedded", "The mayor of New York")

`schema` says what is in the file, `writer` and `reader` write and read it, `runs` reads what the package leaves in
folders, `services` says what is kept of a unit, `grammar` and `search` find units by token, `checks` finds damage.
`programs` keeps graphs in the form they are run in, `tokenizer` the model's tokenizer; with both, `match` runs graphs
over any text, and `matches` is what it gives.
"""
