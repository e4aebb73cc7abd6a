"""What may be tried: backbones as shapes, PEFT methods, configurations, their exact cost, and the spaces over them.

Standard library and numpy only; nothing here trains, records or proposes.
"""
