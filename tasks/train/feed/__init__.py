"""From ArrayRecord to batches: mixing, shuffling, tokenising and packing, with a position that is a few numbers.

Every source has one endless global order: epoch after epoch, each a permutation drawn from (seed, source, epoch)
(`sources.py`). The data is packed in a fixed number of streams (`streams.py`). Stream v of V takes the documents v,
v + V, v + 2V, … of each order, always from the source that lags most behind its share of the stream's tokens, so shares
hold to within a document. A stream depends on nothing but the config, and its position is how many documents it took
and how far it is in the last one. So a resume gives the very next rows, and hosts (`batches.py`) and worker processes
(`workers.py`; `python -m tasks.train.feed` is one) may share the streams in any way. What was seen, and how often, is
in the token ledger (`ledger.py`).

Modules that a worker imports know neither JAX nor Grain: it starts in half a second and 50 MB, not in four and 220.
"""
