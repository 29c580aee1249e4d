"""Generate H&E histology images from spatially resolved single-cell gene expression.

Public names are imported when they are first used, so that `import sge2hist` stays fast.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sge2hist.api import SGE2Hist
    from sge2hist.data.errors import InputError
    from sge2hist.data.generated import GeneratedSet
    from sge2hist.data.paired import PairedDataset

_HOMES = {
    "SGE2Hist": "sge2hist.api",
    "InputError": "sge2hist.data.errors",
    "PairedDataset": "sge2hist.data.paired",
    "GeneratedSet": "sge2hist.data.generated",
}
__all__ = ["GeneratedSet", "InputError", "PairedDataset", "SGE2Hist", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sge2hist' has no attribute {name!r}")
