"""PEFT methods as arithmetic: one file a method, gathered here by name.

A ``ModuleMethod`` stands at one linear module, a ``LayerMethod`` at a site of a layer. Each has ``name``, the ``sites``
where it may stand, ``mergeable``, ``require_fit``, ``parameter_count``, ``stored_count``, ``forward_flops`` and JSON
both ways.
"""

from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.loha import Loha
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.methods.vera import Vera

ModuleMethod = Lora | Dora | Ia3 | Hira | Loha | Lokr | Vera | Oft | Mola | Bias
LayerMethod = Norm | Serial | Parallel | Prefix
Method = ModuleMethod | LayerMethod

WEIGHT_UPDATES = ("lora", "dora", "hira", "loha", "lokr", "vera", "oft", "mola")
"""Methods that change what the weight of a module does."""

ADDED_UPDATES = ("lora", "loha", "lokr", "vera")
"""Those that add to what a module computes, whatever else is added: a module may have several, which add up."""

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (Lora, Dora, Ia3, Hira, Loha, Lokr, Vera, Oft, Mola, Bias, Norm, Serial, Parallel, Prefix)
}
"""Every method by the name that configurations use."""
