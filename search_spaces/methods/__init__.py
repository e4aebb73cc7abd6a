"""PEFT methods as arithmetic: one file a method, gathered here by name."""

from search_spaces.methods.lora import Lora

METHODS: dict[str, type[Lora]] = {Lora.name: Lora}
"""Every method by the name that configurations use."""

Method = Lora
"""Any of them (one as yet)."""
