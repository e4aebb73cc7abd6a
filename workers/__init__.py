"""Who does the work: takes orders from the record, trains them on a resident backbone, hands back measurements.

Run as ``python -P -m workers``. A worker proposes nothing and decides nothing.
"""
