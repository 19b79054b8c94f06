"""What is on disk to work with: models (later LoRAs and embeddings), and presets.

Knows: folders in diffusers layout in home/models and in the shipped assets; their family, size, number format and
content hash, read from configs and headers. Does not know: torch; what is loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import BadFile, ModelNotFound, UnknownFamily
from studio.settings import Settings, shipped
from studio.spec.tables import FAMILIES, Family
from studio.store import files

CLASSES: dict[str, Family] = {"StableDiffusionPipeline": "sd1", "StableDiffusionXLPipeline": "sdxl"}
PARTS: dict[Family, tuple[str, ...]] = {"sd1": ("unet", "vae", "text_encoder"), "sd2": ("unet", "vae", "text_encoder"),
                                        "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2")}
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8"}
LARGEST = 16_384  # pixels a side


@dataclass(frozen=True)
class ModelInfo:
    """A model folder. `side` is the size of picture it was made for, `variant` the ending of its weight files."""

    name: str
    path: Path
    family: Family
    prediction: str
    side: int
    dtype: str
    bytes: int
    variant: str | None
    embedded: bool


@dataclass(frozen=True)
class Unusable:
    """A folder that looks like a model but cannot be run, and why."""

    name: str
    path: Path
    problem: str


class Library:
    """The shelf. Every call looks at the disk: a model that was just copied there is there."""

    def __init__(self, settings: Settings) -> None:
        self._folders = (settings.models, shipped("assets"))
        self._hashes = settings.home / "hashes.json"
        self._writing = threading.Lock()

    def scan(self) -> list[ModelInfo | Unusable]:
        """All model folders by name; the home's own come first and hide a shipped one of the same name."""
        found: dict[str, ModelInfo | Unusable] = {}
        for folder in self._folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.name not in found and (path / "model_index.json").is_file():
                    found[path.name] = self._look(path)
        return list(found.values())

    def models(self) -> list[ModelInfo]:
        """The models that can be run."""
        return [model for model in self.scan() if isinstance(model, ModelInfo)]

    def model(self, name: str) -> ModelInfo:
        """Raises ModelNotFound, which names the nearest, or UnknownFamily, which says what is wrong with the folder."""
        every = {model.name: model for model in self.scan()}
        model = every.get(name)
        if model is None:
            near = difflib.get_close_matches(name, every, 3, 0.4) or list(every)[:5]
            raise ModelNotFound(f"There is no model {name!r:.80} in the library; there is {', '.join(near) or 'none'}.")
        if isinstance(model, Unusable):
            raise UnknownFamily(f"The model {name} cannot be used: {model.problem}")
        return model

    def content(self, model: ModelInfo, compute: bool = True) -> str:
        """sha256 over names and bytes of the parts that a picture needs; remembered until one of them changes.

        Without `compute` an unknown one is "" (hashing gigabytes takes a while: not for a page that is just drawn).
        """
        folders = (*PARTS[model.family], "scheduler", "tokenizer", "tokenizer_2")
        parts = [model.path / "model_index.json", *sorted(
            path for name in folders for path in (model.path / name).rglob("*")
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"))]
        stamp = [[str(p.relative_to(model.path)), p.stat().st_size, p.stat().st_mtime_ns] for p in parts]
        known = self._known().get(str(model.path), {})
        if isinstance(known, dict) and known.get("stamp") == stamp and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
        if not compute:
            return ""
        total = hashlib.sha256()
        for path in parts:
            with open(path, "rb") as file:
                total.update(f"{path.relative_to(model.path).as_posix()}\0".encode())
                total.update(hashlib.file_digest(file, "sha256").digest())
        with self._writing:
            every = self._known() | {str(model.path): {"stamp": stamp, "sha256": total.hexdigest()}}
            files.write(self._hashes, json.dumps(every).encode())
        return total.hexdigest()

    def _known(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._hashes.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return {}  # a cache: what is lost or broken is computed again

    def _look(self, path: Path) -> ModelInfo | Unusable:
        try:
            return look(path, embedded=path.parent == self._folders[1])
        except (UnknownFamily, BadFile) as error:
            return Unusable(path.name, path, str(error))


def look(path: Path, embedded: bool = False) -> ModelInfo:
    """What a model folder is. Raises UnknownFamily and BadFile."""
    index = _json(path / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in CLASSES:
        titles = ", ".join(info.title for info in FAMILIES.values())
        raise UnknownFamily(f"its kind is {kind:.60}; the studio runs {titles}.")
    unet, scheduler, vae = (_json(path / part) for part in ("unet/config.json", "scheduler/scheduler_config.json",
                                                            "vae/config.json"))
    family = CLASSES[kind]
    if family == "sd1" and unet.get("cross_attention_dim") == 1024:
        family = "sd2"
    if unet.get("in_channels") != 4:
        raise UnknownFamily(f"its U-Net takes {unet.get('in_channels')} channels instead of 4 (an inpainting or editing model).")
    weights = {part: _weights(path / part) for part in PARTS[family]}
    halves = [part for part, found in weights.items() if ".fp16." in found[0].name]
    if halves and len(halves) < len(weights):
        raise BadFile(f"its {halves[0]} has only .fp16 weights and other parts have only plain ones; copy all of one kind.")
    variant = "fp16" if halves else None
    return ModelInfo(path.name, path, family, str(scheduler.get("prediction_type", "epsilon")), _side(family, unet, vae),
                     _dtype(weights["unet"][0]), sum(f.stat().st_size for found in weights.values() for f in found), variant,
                     embedded)


def _side(family: Family, unet: dict[str, Any], vae: dict[str, Any]) -> int:
    try:
        latent = int(unet.get("sample_size") or FAMILIES[family].size // 8)
        side = latent << (len(vae.get("block_out_channels", "1234")) - 1)
    except (TypeError, ValueError, OverflowError):
        side = 0
    if not 8 <= side <= LARGEST:
        raise BadFile("its configs of U-Net and autoencoder name no size of picture that can be.")
    return side


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise BadFile(f"its {path.parent.name}/{path.name} is missing.") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadFile(f"its {path.parent.name}/{path.name} cannot be read ({type(error).__name__}).") from None


def _weights(folder: Path) -> list[Path]:
    """The safetensors files of one part: the plain ones, else those that end in .fp16."""
    every = sorted(path for path in folder.glob("*.safetensors") if path.is_file())  # a link may lead nowhere
    plain = [path for path in every if ".fp16." not in path.name and ".non_ema." not in path.name]
    found = plain or [path for path in every if ".fp16." in path.name]
    if not found:
        others = sorted({path.suffix for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pt", ".msgpack")})
        raise BadFile(f"its {folder.name} has no .safetensors file" + (
            f", only {', '.join(others)}, which can carry programs; convert it first." if others else "."))
    return found


def _dtype(path: Path) -> str:
    kinds = Counter(str(entry["dtype"]) for name, entry in files.safetensors_header(path).items()
                    if name != "__metadata__" and isinstance(entry, dict) and "dtype" in entry)
    most = kinds.most_common(1)[0][0] if kinds else "?"
    return DTYPES.get(most, most)
