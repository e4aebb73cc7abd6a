"""The score sheet of a configuration: modules by layers with a rank in each cell, as text, HTML table or SVG.

Drawn from shapes and arithmetic alone: no torch, no model, no record. It shows the plan, not how well it did.
"""

from autopeft.score_sheet.markup import html_sheet
from autopeft.score_sheet.picture import svg_sheet
from autopeft.score_sheet.plain import text_sheet

__all__ = ["html_sheet", "svg_sheet", "text_sheet"]
