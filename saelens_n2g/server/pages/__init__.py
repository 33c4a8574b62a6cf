"""Pages: what a store has, as HTML that reads without a script.

`views` (and its neighbours) make a `Page` of a store, `render` makes HTML of a page, `links` says where other pages
are, on a server or in a folder. Scripts and styles are files of our own in `assets`; tokens are escaped everywhere.
"""
