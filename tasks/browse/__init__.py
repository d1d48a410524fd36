"""`nestling browse`: a local page over a finished artifact of documents or conversations.

`shelf.py` reads rows at a place, `search.py` looks for words, `rejects.py` shows what was dropped and why, `whatif.py`
counts what other thresholds would keep, `server.py` makes pages of it. Everything is read as it is asked for: memory
is a row group, a sample of fixed size, and a cache with a limit (`whatif.CACHE_BYTES`), however large the artifact is.
"""
