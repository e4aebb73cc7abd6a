"""The score sheet of a configuration: modules by layers with a rank in each cell, as text, HTML table or SVG.

Drawn from shapes and arithmetic alone: no torch, no model, no record. It shows the plan, not how well it did; what a
trial learned of its layers stands in strips. ``contrast`` lays several plans side by side.
"""

from autopeft.score_sheet.agreement_markup import html_agreement
from autopeft.score_sheet.contrast import contrast_map, html_contrast, text_contrast
from autopeft.score_sheet.markup import html_sheet
from autopeft.score_sheet.picture import svg_sheet
from autopeft.score_sheet.plain import text_sheet

__all__ = ["contrast_map", "html_agreement", "html_contrast", "html_sheet", "svg_sheet", "text_contrast", "text_sheet"]
