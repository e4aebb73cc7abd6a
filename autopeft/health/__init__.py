"""Whether a search can be trusted: does its surrogate predict, is its space wide enough, what was tried twice. No SQL.

``check`` leaves every trial out and predicts it from the others; ``edges`` says where the front touches the edge of
the space; ``repeated`` counts what was asked more than once.
"""

from autopeft.health.check import Check, leave_one_out
from autopeft.health.edges import Edge, edges
from autopeft.health.repeated import Repeated, repeated

__all__ = ["Check", "Edge", "Repeated", "edges", "leave_one_out", "repeated"]
