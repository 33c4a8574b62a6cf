"""The server: a store over HTTP, as a JSON API and as pages.

    app = Atlas(Path("atlas.db"))              # an ASGI application; may be mounted in another one
    serve(Path("atlas.db"), port=8080)         # and run

`catalogue` knows what there is, `address` how it is addressed, `api` answers /api in the shapes of DeepDecipher (Garde
et al. 2023) and `endpoints` says what may be asked, for the answers as for the description at /doc. Nothing here
writes, and nothing is fetched from elsewhere.
"""
