"""What is on disk to work with: models and LoRAs.

Knows: folders in diffusers layout in home/models and in the shipped assets, LoRA files in
home/loras; their family, size, number format and content hash, read from configs and headers.
Does not know: torch; what is loaded.
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
from studio.errors import BadFile, LoraMismatch, LoraNotFound, ModelNotFound, UnknownFamily, quote
from studio.settings import Settings, shipped
from studio.storage import atomic
from studio.storage.content_hashes import ContentHashes
from studio.storage.inputs import Inputs
from studio.storage.models import lora_file, model_file
from studio.storage.models.lora_file import LoraInfo
from studio.storage.models.peft_config import list_files

__all__ = ["Library", "LoraInfo", "ModelInfo", "Unusable", "get_by_name", "read_model_info"]

FAMILY_BY_PIPELINE_CLASS: dict[str, Family] = {
    "StableDiffusionPipeline": "sd1",
    "StableDiffusionInpaintPipeline": "sd1",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
}
FAMILY_COMPONENTS: dict[Family, tuple[str, ...]] = {
    "sd1": ("unet", "vae", "text_encoder"),
    "sd2": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
DTYPE_BY_SAFETENSORS_CODE = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8",
}
MAX_NATIVE_SIZE_PX = 16_384
MAX_LORAS = 10_000
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
T = TypeVar("T")


@dataclass(frozen=True)
class ModelInfo:
    """A model folder.

    `native_size` is the side in pixels of the images that it was trained on, `variant` the ending
    of its weight files (None or "fp16"), `activation_elements_per_pixel` about how many numbers its
    U-Net holds at once for each pixel of one image. An inpainting model's U-Net is also shown the
    mask and the unmasked image: 9 channels instead of 4.
    """

    name: str
    path: Path
    family: Family
    prediction_type: str
    native_size: int
    dtype: str
    size_bytes: int
    variant: str | None
    bundled: bool
    activation_elements_per_pixel: int
    is_inpainting: bool = False


@dataclass(frozen=True)
class Unusable:
    """Something that looks like a model or a LoRA but cannot be used, and why."""

    name: str
    path: Path
    problem: str


def get_by_name(entries: Mapping[str, T | Unusable], name: str, noun: str, location: str) -> T:
    """Look up a model.

    Args:
        entries: models by name.
        name: the one to look up.
        noun: what messages call it, such as "model".
        location: where it was looked for, for messages.

    Raises:
        ModelNotFound: there is none of this name; the message names close matches.
        UnknownFamily: it cannot be used; the message says what is wrong with its folder.
    """
    entry = entries.get(name)
    if entry is None:
        matches = difflib.get_close_matches(name, entries, 3, 0.4) or list(entries)[:5]
        raise ModelNotFound(
            f"There is no {noun} {quote(name)} in {location}; there is "
            f"{', '.join(matches) or 'none'}."
        )
    if isinstance(entry, Unusable):
        raise UnknownFamily(f"The {noun} {name} cannot be used: {entry.problem}")
    return entry


class Library:
    """The models and LoRAs of a home.

    Every call reads the disk: a model that was just copied there is listed.
    """

    def __init__(self, settings: Settings) -> None:
        self._model_folders = (settings.models, shipped("assets"))
        self._lora_folder = settings.loras
        self.inputs = Inputs(settings)
        self._hashes = ContentHashes(settings.home)
        # by file: its stamp, and its info or what is wrong with it
        self._lora_cache: dict[Path, tuple[Any, LoraInfo | str]] = {}
        # by file in home/models: its stamp, and what it is
        self._explanations: dict[Path, tuple[Any, str]] = {}

    def scan_models(self) -> list[ModelInfo | Unusable]:
        """List all model folders by name, the home's own first, and files that lie beside them.

        A model of the home hides a shipped one of the same name.
        """
        models: dict[str, ModelInfo | Unusable] = {}
        files: dict[str, Unusable] = {}
        for folder in self._model_folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.name in models:
                    continue
                if (path / "model_index.json").is_file():
                    models[path.name] = self._read_model(path)
                elif _has_weights_suffix(path.name) and path.is_file():
                    files[path.name] = Unusable(_printable(path.name), path, self._explain(path))
        return [*models.values(), *files.values()]

    def list_models(self) -> list[ModelInfo]:
        """List the models that can be run."""
        return [model for model in self.scan_models() if isinstance(model, ModelInfo)]

    def get_model(self, name: str) -> ModelInfo:
        """Look up a model.

        Raises:
            ModelNotFound: there is none of this name; the message names close matches.
            UnknownFamily: it cannot be run; the message says what is wrong with its folder.
        """
        models = {model.name: model for model in self.scan_models()}
        return get_by_name(models, name, "model", "the library")

    def list_loras(self) -> list[LoraInfo | Unusable]:
        """List all LoRA files in home/loras and its subfolders, by name."""
        loras: list[LoraInfo | Unusable] = []
        for name, path in self._find_lora_files().items():
            try:
                loras.append(self._read_lora(name, path))
            except BadFile as error:
                loras.append(Unusable(_printable(name), path, str(error)))
        return loras

    def get_lora(self, name: str) -> LoraInfo:
        """Look up a LoRA.

        Args:
            name: its name, or its path in home/loras without the ending.

        Raises:
            LoraNotFound: there is none of this name; the message names close matches.
            BadFile: the file cannot be used.
        """
        files = self._find_lora_files()
        path = files.get(name)
        if path is None:
            files_by_path = {self._relative_name(file): file for file in files.values()}
            path = files_by_path.get(name)
        if path is None:
            matches = _printable(", ".join(_find_similar(name, list(files))))
            raise LoraNotFound(
                f"There is no LoRA {quote(name)} in the library; there is {matches or 'none'}."
            )
        return self._read_lora(name, path)

    def add_lora(self, source: Path, name: str) -> LoraInfo:
        """Copy a LoRA file into home/loras.

        Args:
            source: where it lies now.
            name: the file name that its owner gave it.

        Raises:
            BadFile: it is no LoRA that can be used, or there is one of this name already.
        """
        if Path(name).suffix.lower() != ".safetensors":
            raise BadFile(f"{quote(name)} is no .safetensors file; other kinds can carry programs.")
        path = self._lora_folder / f"{atomic.safe_name(Path(name).stem)}.safetensors"
        try:
            lora_file.read_lora_info(source, path.stem)
        except BadFile as error:
            raise BadFile(str(error).replace(source.name, path.name)) from None
        try:
            with atomic.open_for_writing(path, replace=False) as target, open(source, "rb") as file:
                shutil.copyfileobj(file, target, 2**20)
        except FileExistsError:
            raise BadFile(f"There is a LoRA {path.stem} already; rename the file first.") from None
        return self._read_lora(path.stem, path)

    def check_request(self, request: GenerationRequest) -> ModelInfo:
        """Check that all that a request names is here and fits together, as far as headers tell.

        Returns:
            The request's model.

        Raises:
            ModelNotFound: the model is not there.
            UnknownFamily: the model cannot be run.
            LoraNotFound: a LoRA is not there.
            LoraMismatch: a LoRA is made for another family.
            BadFile: a LoRA or an input cannot be used.
            BadPicture: an input image cannot be used.
            InvalidSpec: inputs do not fit the request.
        """
        model = self.get_model(request.model)
        self.inputs.check_request(request)
        for use in request.with_inline_loras().loras:
            lora = self.get_lora(use.name)
            if lora.family not in (None, model.family):
                raise LoraMismatch(
                    f"The LoRA {lora.name} is for {FAMILIES[lora.family].title} and {model.name} "
                    f"is {FAMILIES[model.family].title}; choose another of them."
                )
        return model

    def get_content_hash(self, item: ModelInfo | LoraInfo, compute: bool = True) -> str:
        """Return the sha256 over all that generating an image reads of a model or LoRA.

        It covers names and bytes of a model's parts, and the bytes of a LoRA file, whatever its
        name. It is remembered until a file changes.

        Args:
            item: the model or LoRA.
            compute: False returns "" for a hash that is not known yet: hashing gigabytes takes too
                long while a page is drawn.
        """
        root = item.path if isinstance(item, ModelInfo) else item.path.parent
        return self._hashes.get_hash(item.path, _list_content_files(item), root, compute)

    def _relative_name(self, path: Path) -> str:
        return path.relative_to(self._lora_folder).with_suffix("").as_posix()

    def _find_lora_files(self) -> dict[str, Path]:
        """Return LoRA files by stem, or by folder/stem where several have the same one."""
        files = sorted(self._walk_lora_folder())
        num_files_by_stem = Counter(path.stem for path in files)
        return {
            path.stem if num_files_by_stem[path.stem] == 1 else self._relative_name(path): path
            for path in files
        }

    def _walk_lora_folder(self) -> list[Path]:
        """List the LoRA files of all folders, linked ones too, but each only once."""
        files: list[Path] = []
        visited: set[str] = set()
        for folder, subfolders, names in os.walk(self._lora_folder, followlinks=True):
            real_path = os.path.realpath(folder)
            if real_path in visited:
                subfolders.clear()
                continue
            visited.add(real_path)
            if len(files) > MAX_LORAS:
                subfolders.clear()
            subfolders.sort()
            paths = [Path(folder, name) for name in names if _has_weights_suffix(name)]
            files += [path for path in paths if os.path.isfile(path)]
        return files

    def _explain(self, path: Path) -> str:
        """Return what a file in home/models is and why it is no model; cached by its stamp."""
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            known = self._explanations.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, model_file.explain_no_model(path))
                self._explanations[path] = known
            return known[1]
        except (BadFile, OSError) as error:
            return str(error)

    def _read_lora(self, name: str, path: Path) -> LoraInfo:
        """Read a LoRA file, or take it from the cache; raise BadFile if it cannot be used."""
        try:
            LoraUse(name=name)
        except ValueError:
            raise BadFile(
                "its name has characters that a tag cannot hold (<, >, :, blanks at an end), or is "
                "too long; rename it."
            ) from None
        if path.suffix.lower() != ".safetensors":
            raise BadFile(
                f"{path.name} can carry programs and is not opened; only .safetensors is."
            )
        try:
            stats = [file.stat() for file in list_files(path)]
            stamp = (name, *((stat.st_size, stat.st_mtime_ns) for stat in stats))
            if self._lora_cache.get(path, (None,))[0] != stamp:
                self._lora_cache[path] = (stamp, _read_info_or_problem(path, name))
        except OSError as error:
            raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None
        info = self._lora_cache[path][1]
        if isinstance(info, str):
            raise BadFile(info)
        return info

    def _read_model(self, path: Path) -> ModelInfo | Unusable:
        try:
            return read_model_info(path, bundled=path.parent == self._model_folders[1])
        except (UnknownFamily, BadFile) as error:
            return Unusable(path.name, path, str(error))


def read_model_info(path: Path, bundled: bool = False) -> ModelInfo:
    """Read what a model folder is.

    Args:
        path: a folder in diffusers layout.
        bundled: it came with the studio.

    Raises:
        UnknownFamily: the studio does not run its kind of model.
        BadFile: a file is missing or broken.
    """
    index = _read_json(path / "model_index.json")
    pipeline_class = str(index.get("_class_name"))
    if pipeline_class not in FAMILY_BY_PIPELINE_CLASS:
        titles = ", ".join(info.title for info in FAMILIES.values())
        raise UnknownFamily(f"its kind is {pipeline_class:.60}; the studio runs {titles}.")
    unet_config = _read_json(path / "unet/config.json")
    scheduler_config = _read_json(path / "scheduler/scheduler_config.json")
    vae_config = _read_json(path / "vae/config.json")
    family = FAMILY_BY_PIPELINE_CLASS[pipeline_class]
    if family == "sd1" and unet_config.get("cross_attention_dim") == 1024:
        family = "sd2"
    if unet_config.get("in_channels") not in (4, 9):
        raise UnknownFamily(
            f"its U-Net takes {unet_config.get('in_channels')} channels; the studio runs those of "
            "4, and of 9 for inpainting."
        )
    weights = {part: _find_weight_files(path / part) for part in FAMILY_COMPONENTS[family]}
    files = [file for part_files in weights.values() for file in part_files]
    variant = _detect_variant(weights)
    return ModelInfo(
        name=path.name,
        path=path,
        family=family,
        prediction_type=str(scheduler_config.get("prediction_type", "epsilon")),
        native_size=_read_native_size(family, unet_config, vae_config),
        dtype=_read_dtype(weights["unet"][0]),
        size_bytes=sum(file.stat().st_size for file in files),
        variant=variant,
        bundled=bundled,
        activation_elements_per_pixel=_estimate_activation_elements(unet_config, vae_config),
        is_inpainting=unet_config["in_channels"] == 9,
    )


def _printable(name: str) -> str:
    """Make a file's name printable: its bytes need not be text."""
    return name.encode(errors="replace").decode()


def _has_weights_suffix(name: str) -> bool:
    suffixes = (".safetensors", ".gguf", *PICKLE_SUFFIXES)
    return not name.startswith(".") and name.lower().endswith(suffixes)


def _find_similar(name: str, lora_names: list[str]) -> list[str]:
    """Return the LoRAs that may be meant: of that stem, else alike, else the first few."""
    same_stem = [lora_name for lora_name in lora_names if lora_name.rpartition("/")[2] == name]
    if same_stem:  # in several folders
        return same_stem
    by_folded_name = {lora_name.casefold(): lora_name for lora_name in lora_names}
    matches = difflib.get_close_matches(name.casefold(), by_folded_name, 3, 0.4)
    if matches:
        return [by_folded_name[match] for match in matches]
    return lora_names[:5]


def _read_info_or_problem(path: Path, name: str) -> LoraInfo | str:
    try:
        return lora_file.read_lora_info(path, name)
    except BadFile as error:
        return str(error)


def _list_content_files(item: ModelInfo | LoraInfo) -> list[Path]:
    """List the files that decide what comes out of a model or LoRA."""
    if isinstance(item, LoraInfo):
        return list_files(item.path)
    parts = (*FAMILY_COMPONENTS[item.family], "scheduler", "tokenizer", "tokenizer_2")
    files = [
        path
        for part in parts
        for path in (item.path / part).rglob("*")
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model")
    ]
    return [item.path / "model_index.json", *sorted(files)]


def _detect_variant(weights: Mapping[str, list[Path]]) -> str | None:
    """Return "fp16" if all parts have only .fp16 weights, None if all have plain ones."""
    fp16_parts = [part for part, files in weights.items() if ".fp16." in files[0].name]
    if not fp16_parts:
        return None
    if len(fp16_parts) < len(weights):
        raise BadFile(
            f"its {fp16_parts[0]} has only .fp16 weights and other parts have only plain ones; "
            "copy all of one kind."
        )
    return "fp16"


def _read_native_size(
    family: Family, unet_config: dict[str, Any], vae_config: dict[str, Any]
) -> int:
    """Return the side in pixels of the images that a model was trained on."""
    try:
        latent_side = int(unet_config.get("sample_size") or FAMILIES[family].native_size // 8)
        side = latent_side * _vae_scale_factor(vae_config)
    except (TypeError, ValueError, OverflowError):
        side = 0
    if not 8 <= side <= MAX_NATIVE_SIZE_PX:
        raise BadFile("its configs of U-Net and autoencoder name no size of picture that can be.")
    return side


def _estimate_activation_elements(unet_config: dict[str, Any], vae_config: dict[str, Any]) -> int:
    """Estimate how many activations the U-Net holds at once per image pixel; rather too many.

    At its widest it holds the gated feed-forward of the first level's attention (about 20 × its
    channels) and the skip connections of all levels.
    """
    try:
        channels = [
            int(width) for width in unet_config.get("block_out_channels", (320, 640, 1280, 1280))
        ]
        layers = int(unet_config.get("layers_per_block", 2))
        skips = sum((layers + 1) * width / 4.0**level for level, width in enumerate(channels))
        per_latent_pixel = 20 * channels[0] + skips
        return max(1, math.ceil(per_latent_pixel / _vae_scale_factor(vae_config) ** 2))
    except (TypeError, ValueError, IndexError, OverflowError):
        raise BadFile("its U-Net's config names no widths that can be.") from None


def _vae_scale_factor(vae_config: dict[str, Any]) -> int:
    """Return image pixels per latent pixel and side: each level but the last halves the size."""
    num_levels = len(vae_config.get("block_out_channels", "1234"))
    return 1 << (num_levels - 1)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise BadFile(f"its {path.parent.name}/{path.name} is missing.") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadFile(
            f"its {path.parent.name}/{path.name} cannot be read ({type(error).__name__})."
        ) from None


def _find_weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of one part: the plain ones, else those that end in .fp16."""
    # a link may lead nowhere
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    plain = [path for path in files if ".fp16." not in path.name and ".non_ema." not in path.name]
    weights = plain or [path for path in files if ".fp16." in path.name]
    if weights:
        return weights
    problem = f"its {folder.name} has no .safetensors file"
    suffixes = {path.suffix for path in folder.glob("*")} & {".bin", ".ckpt", ".pt", ".msgpack"}
    if not suffixes:
        raise BadFile(f"{problem}.")
    raise BadFile(
        f"{problem}, only {', '.join(sorted(suffixes))}, which can carry programs; convert it "
        "first."
    )


def _read_dtype(path: Path) -> str:
    """Return the number format that most tensors of a file have."""
    codes = Counter(
        str(entry["dtype"])
        for name, entry in atomic.read_safetensors_header(path).items()
        if name != "__metadata__" and isinstance(entry, dict) and "dtype" in entry
    )
    code = codes.most_common(1)[0][0] if codes else "?"
    return DTYPE_BY_SAFETENSORS_CODE.get(code, code)
