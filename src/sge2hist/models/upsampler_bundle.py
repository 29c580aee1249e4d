"""An upsampler's folder ``X.upsampler/``: manifest.json and model.safetensors (averaged weights)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sge2hist.data.artifacts import atomic_path, read_manifest, sha256_of, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.models.bundle import load_weights
from sge2hist.models.image.upsampler import Upsampler, UpsamplerConfig
from sge2hist.models.joint_model import from_plain

KIND = "upsampler"
WEIGHTS_NAME = "model.safetensors"


@dataclass(kw_only=True)
class UpsamplerBundle:
    """A trained upsampler and its provenance; contains no images."""

    model: Upsampler
    channels: tuple[str, ...]  # names of the image's channels
    provenance: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""  # sha256 of the weights file, set when saved or loaded

    @property
    def config(self) -> UpsamplerConfig:
        """The upsampler's configuration."""
        return self.model.config

    def save(self, path: Path) -> None:
        """Write the folder; the manifest comes last and makes it an upsampler. Matrices are stored in float16."""
        from safetensors.torch import save_file

        path.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        state = {name: value.half() if value.dim() >= 2 else value for name, value in state.items()}
        with atomic_path(path / WEIGHTS_NAME) as partial:
            save_file(state, partial, metadata={"format": "pt"})
        self.fingerprint = sha256_of(path / WEIGHTS_NAME)
        write_manifest(
            path,
            KIND,
            config=asdict(self.config),
            channels=list(self.channels),
            weights_sha256=self.fingerprint,
            provenance=self.provenance,
        )

    @classmethod
    def load(cls, path: Path, *, device: str = "cpu") -> UpsamplerBundle:
        """Open a folder, in evaluation mode.

        Raises
        ------
        InputError
            If a file is missing, damaged, or does not belong to the others.
        """
        content = read_manifest(path, KIND)
        try:
            model = Upsampler(from_plain(UpsamplerConfig, content["config"]))
            channels = tuple(str(name) for name in content["channels"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(found=f"a configuration that does not fit ({error})", where=str(path)) from error
        fingerprint = load_weights(model, path / WEIGHTS_NAME, content.get("weights_sha256"))
        return cls(
            model=model.to(device).eval(),
            channels=channels,
            provenance=content.get("provenance", {}),
            fingerprint=fingerprint,
        )
