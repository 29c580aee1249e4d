"""Where a model lies: a folder, one that comes with the package ("pretrained:kidney"), or the hub ("owner/name")."""

from __future__ import annotations

from pathlib import Path

from sge2hist.data.errors import InputError

PREFIX = "pretrained:"
SHIPPED = Path(__file__).parent.parent / "pretrained"


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def is_shipped(name: str | Path) -> bool:
    """Whether `name` asks for a model of the package: such a folder is never written to."""
    return str(name).startswith(PREFIX)


def model_folder(name: str | Path) -> Path:
    """Return the folder of the model called `name`.

    Parameters
    ----------
    name
        A folder, "pretrained:NAME", or "owner/name" of a model on the hub (downloaded once and cached).

    Raises
    ------
    InputError
        If the package ships no such model, or the hub gives none.
    """
    if is_shipped(name):
        wanted = str(name).removeprefix(PREFIX)
        if wanted not in shipped_models():
            raise InputError(
                found=f"no model {wanted!r} in the package",
                expected=" or ".join(PREFIX + known for known in shipped_models()) or "a model folder",
            )
        return SHIPPED / wanted
    path = Path(name)
    if path.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        return path
    return _from_hub(str(name))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            found=f"no folder {name!r}, and the hub did not give a model of that name ({type(error).__name__})",
            expected="a model folder written by `sge2hist train`, or owner/name of a model on the hub",
        ) from error
