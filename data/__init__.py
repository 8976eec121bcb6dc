"""Makes a dataset, once, on the host: a corpus → documents → splits → tokens → rows → a directory.

Text flows through in a stream: memory is bounded by what is held out for evaluation and by one window of packing, not by the
corpus. Nothing here runs in a container; what train.py imports is in prepare.py.
"""
