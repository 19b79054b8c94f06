"""What is on disk to work with: models and LoRAs.

Knows: folders in diffusers layout in home/models and in the shipped assets, LoRA files in home/loras; their family, size,
number format and content hash, read from configs and headers. Does not know: torch; what is loaded.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from studio.core.catalog import FAMILIES, Family
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.errors import BadFile, LoraMismatch, LoraNotFound, ModelNotFound, UnknownFamily
from studio.settings import Settings, shipped
from studio.storage import atomic
from studio.storage.content_hashes import Hashes
from studio.storage.inputs import Inputs
from studio.storage.models import lora_file
from studio.storage.models.lora_file import LoraInfo

__all__ = ["Library", "LoraInfo", "ModelInfo", "Unusable", "look", "named"]

CLASSES: dict[str, Family] = {
    "StableDiffusionPipeline": "sd1",
    "StableDiffusionInpaintPipeline": "sd1",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
}
PARTS: dict[Family, tuple[str, ...]] = {
    "sd1": ("unet", "vae", "text_encoder"),
    "sd2": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8"}
LARGEST = 16_384  # pixels a side
MOST_LORAS = 10_000
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
T = TypeVar("T")


@dataclass(frozen=True)
class ModelInfo:
    """A model folder. `side` is the size of picture it was made for, `variant` the ending of its weight files, `working` about
    how many numbers a row of its U-Net holds at once for each pixel of the picture."""

    name: str
    path: Path
    family: Family
    prediction: str
    side: int
    dtype: str
    bytes: int
    variant: str | None
    embedded: bool
    working: int
    inpainting: bool = False  # its U-Net is shown the mask and what is left of the picture: 9 channels instead of 4


@dataclass(frozen=True)
class Unusable:
    """What looks like a model or a LoRA but cannot be used, and why."""

    name: str
    path: Path
    problem: str


def named(every: Mapping[str, T | Unusable], name: str, what: str, where: str) -> T:
    """One of a shelf. Raises ModelNotFound, which names the nearest, or UnknownFamily, which says what is wrong with the folder."""
    found = every.get(name)
    if found is None:
        near = difflib.get_close_matches(name, every, 3, 0.4) or list(every)[:5]
        raise ModelNotFound(
            f"There is no {what} {name!r:.80} in {where}; there is {', '.join(near) or 'none'}."
        )
    if isinstance(found, Unusable):
        raise UnknownFamily(f"The {what} {name} cannot be used: {found.problem}")
    return found


class Library:
    """The shelf. Every call looks at the disk: a model that was just copied there is there."""

    def __init__(self, settings: Settings) -> None:
        self._folders, self._loras = (settings.models, shipped("assets")), settings.loras
        self.inputs = Inputs(settings)
        self._hashes = Hashes(settings.home)
        self._looked: dict[
            Path, tuple[Any, LoraInfo | str]
        ] = {}  # by file: its stamp, and what it is or what is wrong

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
        return named({model.name: model for model in self.scan()}, name, "model", "the library")

    def loras(self) -> list[LoraInfo | Unusable]:
        """All LoRA files in home/loras and its subfolders, by name."""
        found: list[LoraInfo | Unusable] = []
        for name, path in self._lora_files().items():
            try:
                found.append(self._look_lora(name, path))
            except BadFile as error:
                found.append(Unusable(_shown(name), path, str(error)))
        return found

    def lora(self, name: str) -> LoraInfo:
        """By its name, or by its path in home/loras without the ending.

        Raises LoraNotFound, which names the nearest, or BadFile, which says what is wrong with the file.
        """
        every = self._lora_files()
        path = every.get(name) or {self._relative(path): path for path in every.values()}.get(name)
        if path is None:
            ends = [
                known for known in every if known.rpartition("/")[2] == name
            ]  # in several folders
            folded = {known.casefold(): known for known in every}
            near = (
                ends
                or [
                    folded[one]
                    for one in difflib.get_close_matches(name.casefold(), folded, 3, 0.4)
                ]
                or list(every)[:5]
            )
            raise LoraNotFound(
                f"There is no LoRA {name!r:.80} in the library; there is {_shown(', '.join(near)) or 'none'}."
            )
        return self._look_lora(name, path)

    def add_lora(self, source: Path, name: str) -> LoraInfo:
        """Copy a file into home/loras, under the name that it had. Raises BadFile for one that is no LoRA or is there already."""
        if Path(name).suffix.lower() != ".safetensors":
            raise BadFile(f"{name!r:.80} is no .safetensors file; other kinds can carry programs.")
        path = self._loras / f"{atomic.safe_name(Path(name).stem)}.safetensors"
        try:
            lora_file.look(source, path.stem)
        except BadFile as error:
            raise BadFile(str(error).replace(source.name, path.name)) from None
        try:
            with atomic.writing(path, replace=False) as out, open(source, "rb") as file:
                shutil.copyfileobj(file, out, 2**20)
        except FileExistsError:
            raise BadFile(f"There is a LoRA {path.stem} already; rename the file first.") from None
        return self._look_lora(path.stem, path)

    def check(self, request: GenerationRequest) -> ModelInfo:
        """That all is here which a request names, and that it goes together, as far as headers tell. Gives the model.

        Raises ModelNotFound, UnknownFamily, LoraNotFound, BadFile, LoraMismatch, BadPicture, InvalidSpec.
        """
        model = self.model(request.model)
        self.inputs.check(request)
        for use in request.untagged().loras:
            lora = self.lora(use.name)
            if lora.family not in (None, model.family):
                raise LoraMismatch(
                    f"The LoRA {lora.name} is for {FAMILIES[lora.family].title} and {model.name} is "
                    f"{FAMILIES[model.family].title}; choose another of them."
                )
        return model

    def content(self, item: ModelInfo | LoraInfo, compute: bool = True) -> str:
        """sha256 over names and bytes of the parts that a picture needs (of a LoRA: over its file, whatever its name).

        Remembered until one of them changes. Without `compute` an unknown one is "" (hashing gigabytes takes a while: not
        for a page that is just drawn).
        """
        root = item.path if isinstance(item, ModelInfo) else item.path.parent
        return self._hashes.of(item.path, _parts(item), root, compute)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._loras).with_suffix("").as_posix()

    def _lora_files(self) -> dict[str, Path]:
        """By name: the file's own, or folder/name where two are called the same. Linked folders too, each once."""
        every: list[Path] = []
        seen: set[str] = set()
        for folder, folders, names in os.walk(self._loras, followlinks=True):
            real = os.path.realpath(folder)
            folders[:] = () if real in seen or len(every) > MOST_LORAS else sorted(folders)
            every += [
                path
                for name in names
                if real not in seen
                and not name.startswith(".")
                and name.lower().endswith((".safetensors", *PICKLES))
                and os.path.isfile(path := Path(folder, name))
            ]
            seen.add(real)
        often = Counter(path.stem for path in every)
        return {
            path.stem if often[path.stem] == 1 else self._relative(path): path
            for path in sorted(every)
        }

    def _look_lora(self, name: str, path: Path) -> LoraInfo:
        try:
            LoraUse(name=name)
        except ValueError:
            raise BadFile(
                "its name has characters that a tag cannot hold (<, >, :, blanks at an end), or is too long; "
                "rename it."
            ) from None
        if path.suffix.lower() != ".safetensors":
            raise BadFile(
                f"{path.name} can carry programs and is not opened; only .safetensors is."
            )
        try:
            stamp = (
                name,
                *((one.stat().st_size, one.stat().st_mtime_ns) for one in lora_file.files_of(path)),
            )
            if self._looked.get(path, (None,))[0] != stamp:
                self._looked[path] = stamp, lora_file.look(path, name)
        except OSError as error:
            raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None
        except BadFile as error:
            self._looked[path] = stamp, str(error)
        found = self._looked[path][1]
        if isinstance(found, str):
            raise BadFile(found)
        return found

    def _look(self, path: Path) -> ModelInfo | Unusable:
        try:
            return look(path, embedded=path.parent == self._folders[1])
        except (UnknownFamily, BadFile) as error:
            return Unusable(path.name, path, str(error))


def _shown(name: str) -> str:
    """A file's name may be no text."""
    return name.encode(errors="replace").decode()


def _parts(item: ModelInfo | LoraInfo) -> list[Path]:
    if isinstance(item, LoraInfo):
        return lora_file.files_of(item.path)
    folders = (*PARTS[item.family], "scheduler", "tokenizer", "tokenizer_2")
    return [
        item.path / "model_index.json",
        *sorted(
            path
            for name in folders
            for path in (item.path / name).rglob("*")
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model")
        ),
    ]


def look(path: Path, embedded: bool = False) -> ModelInfo:
    """What a model folder is. Raises UnknownFamily and BadFile."""
    index = _json(path / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in CLASSES:
        titles = ", ".join(info.title for info in FAMILIES.values())
        raise UnknownFamily(f"its kind is {kind:.60}; the studio runs {titles}.")
    unet, scheduler, vae = (
        _json(path / part)
        for part in ("unet/config.json", "scheduler/scheduler_config.json", "vae/config.json")
    )
    family = CLASSES[kind]
    if family == "sd1" and unet.get("cross_attention_dim") == 1024:
        family = "sd2"
    if unet.get("in_channels") not in (4, 9):
        raise UnknownFamily(
            f"its U-Net takes {unet.get('in_channels')} channels; the studio runs those of 4, and of 9 for "
            "inpainting."
        )
    weights = {part: _weights(path / part) for part in PARTS[family]}
    halves = [part for part, found in weights.items() if ".fp16." in found[0].name]
    if halves and len(halves) < len(weights):
        raise BadFile(
            f"its {halves[0]} has only .fp16 weights and other parts have only plain ones; copy all of one kind."
        )
    variant = "fp16" if halves else None
    return ModelInfo(
        path.name,
        path,
        family,
        str(scheduler.get("prediction_type", "epsilon")),
        _side(family, unet, vae),
        _dtype(weights["unet"][0]),
        sum(f.stat().st_size for found in weights.values() for f in found),
        variant,
        embedded,
        _working(unet, vae),
        unet["in_channels"] == 9,
    )


def _side(family: Family, unet: dict[str, Any], vae: dict[str, Any]) -> int:
    try:
        latent = int(unet.get("sample_size") or FAMILIES[family].size // 8)
        side = latent << (len(vae.get("block_out_channels", "1234")) - 1)
    except (TypeError, ValueError, OverflowError):
        side = 0
    if not 8 <= side <= LARGEST:
        raise BadFile("its configs of U-Net and autoencoder name no size of picture that can be.")
    return side


def _working(unet: dict[str, Any], vae: dict[str, Any]) -> int:
    """The feed-forward of the widest attention with its gate, and what waits for the way up; too much rather than too little."""
    try:
        channels = [int(width) for width in unet.get("block_out_channels", (320, 640, 1280, 1280))]
        layers = int(unet.get("layers_per_block", 2))
        held = 20 * channels[0] + sum(
            (layers + 1) * width / 4.0**level for level, width in enumerate(channels)
        )
        scale = 1 << (len(vae.get("block_out_channels", "1234")) - 1)
        return max(1, math.ceil(held / scale**2))
    except (TypeError, ValueError, IndexError, OverflowError):
        raise BadFile("its U-Net's config names no widths that can be.") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise BadFile(f"its {path.parent.name}/{path.name} is missing.") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadFile(
            f"its {path.parent.name}/{path.name} cannot be read ({type(error).__name__})."
        ) from None


def _weights(folder: Path) -> list[Path]:
    """The safetensors files of one part: the plain ones, else those that end in .fp16."""
    every = sorted(
        path for path in folder.glob("*.safetensors") if path.is_file()
    )  # a link may lead nowhere
    plain = [path for path in every if ".fp16." not in path.name and ".non_ema." not in path.name]
    found = plain or [path for path in every if ".fp16." in path.name]
    if not found:
        others = sorted(
            {
                path.suffix
                for path in folder.glob("*")
                if path.suffix in (".bin", ".ckpt", ".pt", ".msgpack")
            }
        )
        raise BadFile(
            f"its {folder.name} has no .safetensors file"
            + (
                f", only {', '.join(others)}, which can carry programs; convert it first."
                if others
                else "."
            )
        )
    return found


def _dtype(path: Path) -> str:
    kinds = Counter(
        str(entry["dtype"])
        for name, entry in atomic.safetensors_header(path).items()
        if name != "__metadata__" and isinstance(entry, dict) and "dtype" in entry
    )
    most = kinds.most_common(1)[0][0] if kinds else "?"
    return DTYPES.get(most, most)
