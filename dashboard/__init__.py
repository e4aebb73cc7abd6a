"""The dashboard: looks at studies in the browser. Reads through ``autopeft.store.reader`` only, and never writes.

``python -P -m dashboard`` starts it; exports run as ``autopeft export`` in a child process, so no torch is loaded here.
"""
