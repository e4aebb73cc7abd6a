"""Figures as Vega-Lite specifications with named tables: functions of values, testable without Streamlit.

Written as plain objects, since building them with Altair takes 0.1 CPU seconds a figure and a page is drawn anew at
every click; a test holds every one of them against Vega-Lite's schema by Altair.
"""
