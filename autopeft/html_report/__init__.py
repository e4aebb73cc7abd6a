"""A study as one static HTML file: front, score sheets, verdict, provenance. No server, no network, no script.

Colours follow the reader's system; every picture is inline. It shows the study as it stands, and does not follow it.
"""

from autopeft.html_report.document import Contents, html_report

__all__ = ["Contents", "html_report"]
