"""Generate H&E histology images from spatially resolved single-cell gene expression.

Public names are imported when they are first used, so that `import sge2hist` stays fast.
"""

from typing import TYPE_CHECKING, Any

from sge2hist.threads import set_thread_defaults

set_thread_defaults()  # before any module loads torch

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sge2hist.api import SGE2Hist as SGE2Hist
    from sge2hist.data.errors import InputError as InputError
    from sge2hist.data.generated import GeneratedSet as GeneratedSet
    from sge2hist.data.generated import GeneratedSlide as GeneratedSlide
    from sge2hist.data.paired import PairedDataset as PairedDataset
    from sge2hist.display import ContactSheet as ContactSheet
    from sge2hist.display import contact_sheet as contact_sheet
    from sge2hist.evaluation.config import EvaluateConfig as EvaluateConfig
    from sge2hist.evaluation.evaluate import evaluate as evaluate
    from sge2hist.explorer.start import explore as explore
    from sge2hist.generation.slide.render import generate_slide as generate_slide
    from sge2hist.models.image.samplers import SamplerConfig as SamplerConfig
    from sge2hist.pairing.config import PrepareConfig as PrepareConfig
    from sge2hist.pairing.prepare import prepare as prepare
    from sge2hist.training.config import TrainConfig as TrainConfig

_HOMES = {
    "ContactSheet": "sge2hist.display",
    "EvaluateConfig": "sge2hist.evaluation.config",
    "GeneratedSet": "sge2hist.data.generated",
    "GeneratedSlide": "sge2hist.data.generated",
    "InputError": "sge2hist.data.errors",
    "PairedDataset": "sge2hist.data.paired",
    "PrepareConfig": "sge2hist.pairing.config",
    "SGE2Hist": "sge2hist.api",
    "SamplerConfig": "sge2hist.models.image.samplers",
    "TrainConfig": "sge2hist.training.config",
    "contact_sheet": "sge2hist.display",
    "evaluate": "sge2hist.evaluation.evaluate",
    "explore": "sge2hist.explorer.start",
    "generate_slide": "sge2hist.generation.slide.render",
    "prepare": "sge2hist.pairing.prepare",
}
__all__ = [
    "ContactSheet",
    "EvaluateConfig",
    "GeneratedSet",
    "GeneratedSlide",
    "InputError",
    "PairedDataset",
    "PrepareConfig",
    "SGE2Hist",
    "SamplerConfig",
    "TrainConfig",
    "__version__",
    "contact_sheet",
    "evaluate",
    "explore",
    "generate_slide",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # found at once the next time
        return value
    raise AttributeError(f"module 'sge2hist' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
