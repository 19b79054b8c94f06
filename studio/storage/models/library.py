"""What is on disk to work with: models and LoRAs.

Knows: folders in diffusers layout in home/models and in the shipped assets, single-file models of
the shelf, LoRA files in home/loras; their family, size, number format and content hash, read from
configs and headers; what the owner decided about models.
Does not know: torch; what is loaded; how a single file is read (single_files.py); what a file is
that is neither (loose_files.py).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from studio.core.families.config_values import check_config_values
from studio.core.families.family import Family
from studio.core.families.registry import FAMILIES, detect_family, find_families
from studio.core.families.unet_config import estimate_decode_elements
from studio.core.generation.family_rules import find_family_faults
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.errors import (
    BadFile,
    InvalidSpec,
    LoraMismatch,
    LoraNotFound,
    ModelNotFound,
    StudioError,
    UnknownFamily,
    list_alternatives,
    quote,
)
from studio.settings import Settings, shipped
from studio.storage import atomic, odd_files
from studio.storage.content_hashes import ContentHashes
from studio.storage.inputs import Inputs
from studio.storage.models import lora_file, model_choices, single_files
from studio.storage.models.header_index import HeaderIndex
from studio.storage.models.loose_files import LooseFiles, Unusable
from studio.storage.models.lora_file import LoraInfo
from studio.storage.models.model_configs import (
    check_is_there,
    list_chosen_files,
    list_content_files,
)
from studio.storage.models.model_info import DTYPE_BY_SAFETENSORS_CODE, ModelInfo
from studio.storage.models.model_options import ModelOptions, ModelOptionsStore
from studio.storage.models.peft_config import list_files
from studio.storage.models.shelf import Root, Shelf, ShelfFile, has_weights_suffix
from studio.storage.odd_files import explain_odd_file, list_folder, make_printable

__all__ = ["Library", "LoraInfo", "ModelInfo", "Unusable", "get_by_name", "read_model_info"]

MAX_LORAS = 10_000
T = TypeVar("T")


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
        matches = difflib.get_close_matches(name, entries, 3, 0.4)
        raise ModelNotFound(
            f"There is no {noun} {quote(name)} in {location}; there is "
            f"{list_alternatives(matches, list(entries))}."
        )
    if isinstance(entry, Unusable):
        raise UnknownFamily(f"The {noun} {name} cannot be used: {entry.problem}")
    return entry


class Library:
    """The models and LoRAs of a home.

    Every call reads the disk: a model that was just copied there is listed.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._model_folders = (settings.models, shipped("assets"))
        self._lora_folder = settings.loras
        self._shipped_loras = shipped("assets") / "loras"
        self.inputs = Inputs(settings)
        self._hashes = ContentHashes(settings.home)
        # by file: its stamp, and its info or what is wrong with it
        self._lora_cache: dict[Path, tuple[Any, LoraInfo | str]] = {}
        self._index = HeaderIndex()
        self._loose_files = LooseFiles(settings, self._index)
        folders = (
            settings.models,
            settings.vaes,
            settings.text_encoders,
            settings.embeddings,
            settings.upscalers,
        )
        # What is neither a model's folder nor a LoRA: VAEs, embeddings, upscalers, checkpoints.
        self.shelf = Shelf([Root(folder) for folder in folders], self._index)
        self._options = ModelOptionsStore(settings.home)
        # Single-file models by file: its stamp, and what it is with nothing decided about it.
        self._file_cache: dict[Path, tuple[Any, ModelInfo]] = {}

    def scan_models(self) -> list[ModelInfo | Unusable]:
        """List all models by name, folders first, the home's own before all; then other files.

        A model of the home hides a shipped one of the same name. Files in the home folder itself
        are listed too: they belong in one of its folders. What was decided about a model whose
        files were never read through is not known here, but to `get_model`.
        """
        return [
            self._apply_options(model, compute=False) if isinstance(model, ModelInfo) else model
            for model in self._scan_undecided()
        ]

    def _scan_undecided(self) -> list[ModelInfo | Unusable]:
        """List what `scan_models` does, but models as their files say."""
        models: dict[str, ModelInfo | Unusable] = {}
        files: list[Unusable] = []
        for folder in self._model_folders:
            for path in list_folder(folder):
                if path.name in models:
                    continue
                if os.path.lexists(path / "model_index.json"):
                    models[path.name] = self._read_model(path)
                elif has_weights_suffix(path.name) and not os.path.isdir(path):
                    files.append(self._loose_files.describe(path))
        for file in self._list_checkpoints():
            name = file.name if file.name not in models else file.name + file.path.suffix
            models[name] = self._read_file_model(replace(file, name=name))
        loose = [*self._loose_files.list_in_home(), *self._loose_files.list_misplaced()]
        files += [self._loose_files.describe(path) for path in loose]
        listed = {model.path for model in models.values()}
        others = [
            file
            for file in files
            if file.path not in listed and not single_files.is_sidecar(file.path)
        ]
        return [*models.values(), *others]

    def _list_checkpoints(self) -> list[ShelfFile]:
        files = [*self.shelf.list_files("checkpoint"), *self.shelf.list_files("denoiser")]
        return [file for file in files if file.path.parent != self._home]

    def list_models(self) -> list[ModelInfo]:
        """List the models that can be run."""
        return [model for model in self.scan_models() if isinstance(model, ModelInfo)]

    def get_model(self, name: str) -> ModelInfo:
        """Look up a model.

        Raises:
            ModelNotFound: there is none of this name; the message names close matches.
            UnknownFamily: it cannot be run; the message says what is wrong with its folder.
        """
        entries = list(reversed(self._scan_undecided()))
        models = {model.name: model for model in entries}
        if name not in models:  # a file goes by its whole name where it is no model
            models |= {entry.path.stem: entry for entry in entries if entry.path.stem == name}
        info = get_by_name(models, name, "model", "the library")
        return self._apply_options(info, compute=True)

    def list_loras(self) -> list[LoraInfo | Unusable]:
        """List the shipped LoRAs and all files in home/loras and its subfolders, by name."""
        loras: list[LoraInfo | Unusable] = []
        for name, path in self._find_lora_files().items():
            try:
                with explain_odd_file(path):
                    loras.append(self._read_lora(name, path))
            except StudioError as error:
                unusable = self._loose_files.describe(path, str(error))
                loras.append(replace(unusable, name=make_printable(name)))
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
            files_by_path = {
                self._relative_name(file): file
                for file in files.values()
                if file.is_relative_to(self._lora_folder)
            }
            path = files_by_path.get(name)
        if path is None:
            names = list_alternatives(_find_similar(name, list(files)), list(files))
            raise LoraNotFound(
                f"There is no LoRA {quote(name)} in the library; there is {make_printable(names)}."
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

    def move_file(self, file: str) -> Path:
        """Move a file of weights from a folder of the home to the one where its kind belongs.

        Args:
            file: What `Unusable.file` says; any other is refused.

        Returns:
            Where it lies now.

        Raises:
            BadFile: It is not there, has no other place to go to, or that place is taken.
        """
        return self._loose_files.move(file, self._walk_lora_folder())

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
            InvalidSpec: inputs do not fit the request, or settings not the model's family.
        """
        faults = find_family_faults(request, FAMILIES[self.get_model(request.model).family])
        if faults:
            raise InvalidSpec(faults)
        return self.check_files(request)

    def check_files(self, request: GenerationRequest) -> ModelInfo:
        """Check a request as `check_request` does, but for the settings that its family refuses.

        Requests with the same model, VAE, LoRAs, image, mask and extension have the same answer.
        """
        model = self.choose_vae(self.get_model(request.model), request.vae)
        check_is_there(model, *FAMILIES[model.family].components)
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
        own_hash = self.get_own_hash(item, compute)
        if isinstance(item, LoraInfo) or not own_hash:
            return own_hash
        chosen = {
            name: self.get_file_hash(path, compute)
            for name, path in list_chosen_files(item).items()
        }
        if not chosen and not item.overrides:
            return own_hash
        if not all(chosen.values()):
            return ""
        text = json.dumps([own_hash, chosen, item.overrides], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def get_own_hash(self, item: ModelInfo | LoraInfo, compute: bool = True) -> str:
        """Return the sha256 over a model's or a LoRA's own files, whatever was decided about it."""
        if isinstance(item, LoraInfo):
            files, root = list_files(item.path), item.path.parent
        else:
            files = list_content_files(item)
            root = item.path.parent if item.is_file else item.path
        return self._hashes.get_hash(item.path, files, root, compute)

    def get_file_hash(self, path: Path, compute: bool = True) -> str:
        """Return the sha256 of a single file; arguments as of `get_content_hash`."""
        return self._hashes.get_hash(path, [path], path.parent, compute)

    # ---- what the owner decides about models ----------------------------------------------------

    def choose_vae(self, info: ModelInfo, name: str) -> ModelInfo:
        """Return a model with the autoencoder of the shelf that a request names; itself for none.

        Raises:
            ModelNotFound: There is none of this name.
            BadFile: It cannot be used, or does not go with the model.
        """
        if not name:
            return info
        part = model_choices.load_vae_part(info, self.shelf, name)
        return info.with_part("vae", part, single_files.get_dtype_bytes(info.dtype))

    def get_vae_hash(self, name: str) -> str:
        """Return the sha256 of an autoencoder of the shelf. Raises as `choose_vae` does."""
        return self.get_file_hash(self.shelf.get_file("vae", name).path)

    def get_options(self, info: ModelInfo) -> ModelOptions:
        """Return what was decided about a model; its files are read through if need be."""
        return self._find_options(info, compute=True)

    def save_options(self, name: str, options: ModelOptions) -> ModelInfo:
        """Keep what was decided about a model, by the content of its files.

        Args:
            name: The model's.
            options: All that is decided; what is empty falls back to what its files say.

        Returns:
            The model as it is now.

        Raises:
            ModelNotFound: There is no such model, or no such VAE or text encoder.
            BadFile: A part does not go with the model, or the decision cannot be kept.
        """
        info = self.get_model(name)
        if FAMILIES[info.family].noise_process == "flow":
            raise BadFile(f"{FAMILIES[info.family].title} leaves nothing to decide; {name} stays.")
        if options.vae:
            model_choices.load_vae_part(info, self.shelf, options.vae)
        for component, encoder in options.text_encoders.items():
            model_choices.load_text_part(info, component, self.shelf, encoder)
        self._options.save(self.get_own_hash(info), _measure_files(info), options)
        return self.get_model(name)

    def _find_options(self, info: ModelInfo, compute: bool) -> ModelOptions:
        if not self._options.is_known_size(_measure_files(info)):
            return ModelOptions()
        sha256 = self.get_own_hash(info, compute)
        return self._options.get(sha256) if sha256 else ModelOptions()

    def _apply_options(self, info: ModelInfo, compute: bool) -> ModelInfo:
        """Return a model as it was decided about; `compute` as of `get_content_hash`."""
        return model_choices.apply_options(info, self.shelf, self._find_options(info, compute))

    def _relative_name(self, path: Path) -> str:
        return path.relative_to(self._lora_folder).with_suffix("").as_posix()

    def _find_lora_files(self) -> dict[str, Path]:
        """Return LoRA files by stem, or by folder/stem where several have the same one.

        LoRAs of the home hide a shipped one of their name.
        """
        files = sorted(self._walk_lora_folder())
        num_files_by_stem = Counter(path.stem for path in files)
        shipped_files = {
            path.stem: path
            for path in sorted(self._shipped_loras.glob("*.safetensors"))
            if path.stem not in num_files_by_stem
        }
        return shipped_files | {
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
            files += [Path(folder, name) for name in names if has_weights_suffix(name)]
        return files

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
            raise BadFile(self._loose_files.explain(path))
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

    def _read_file_model(self, file: ShelfFile) -> ModelInfo | Unusable:
        """Read a single-file model, or take it from the cache."""
        if file.model_file.problem or file.model_file.obstacle:
            return self._loose_files.describe(file.path)
        try:
            with explain_odd_file(file.path, "it"):
                sidecar = single_files.find_sidecar(file.path)
                paths = [file.path, *([sidecar] if sidecar else [])]
                stamp = (
                    file.name,
                    *((path.stat().st_size, path.stat().st_mtime_ns) for path in paths),
                )
                if self._file_cache.get(file.path, (None,))[0] != stamp:
                    self._file_cache[file.path] = (stamp, single_files.read_single_file(file))
        except StudioError as error:
            problem = f"It is {file.model_file.description}, but {error}"
            return Unusable(make_printable(file.path.name), file.path, problem)
        return self._file_cache[file.path][1]

    def _read_model(self, path: Path) -> ModelInfo | Unusable:
        name = make_printable(path.name)
        if name != path.name:
            return Unusable(name, path, "its folder's name has bytes that are no text; rename it.")
        try:
            with explain_odd_file(path, "it"):
                return read_model_info(path, bundled=path.parent == self._model_folders[1])
        except StudioError as error:
            return Unusable(name, path, str(error))


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
    families = find_families(pipeline_class)
    if not families:
        titles = ", ".join(family.title for family in FAMILIES.values())
        raise UnknownFamily(f"its kind is {pipeline_class:.60}; the studio runs {titles}.")
    denoiser_config = _read_json(path / families[0].denoiser / "config.json")
    scheduler_config = _read_json(path / "scheduler/scheduler_config.json")
    vae_config = _read_json(path / "vae/config.json")
    family = detect_family(pipeline_class, denoiser_config)
    assert family
    check_config_values(f"{family.denoiser}/config.json", denoiser_config)
    check_config_values("scheduler/scheduler_config.json", scheduler_config)
    check_config_values("vae/config.json", vae_config)
    for part in family.text_encoders:
        encoder_file = path / part.encoder / "config.json"
        if os.path.lexists(encoder_file):  # what is missing is said when it is loaded
            check_config_values(f"{part.encoder}/config.json", _read_json(encoder_file))
    facts = family.read_config(denoiser_config, vae_config)
    weights = {part: _find_weight_files(path / part) for part in family.components}
    component_bytes = {
        part: sum(file.stat().st_size for file in files) for part, files in weights.items()
    }
    return ModelInfo(
        name=path.name,
        path=path,
        family=family.name,
        prediction_type=_read_prediction_type(family, scheduler_config),
        native_size=facts.native_size,
        dtype=_read_dtype(weights[family.denoiser][0]),
        size_bytes=sum(component_bytes.values()),
        variant=_detect_variant(weights),
        bundled=bundled,
        activation_elements_per_pixel=facts.activation_elements_per_pixel,
        decode_elements_per_pixel=estimate_decode_elements(vae_config),
        is_inpainting=facts.is_inpainting,
        component_bytes=component_bytes,
        recommended_settings=family.recommend_settings(scheduler_config),
    )


def _read_prediction_type(family: Family, scheduler_config: Mapping[str, Any]) -> str:
    """Return what the denoiser predicts: the noise, v, the image, or a flow's velocity."""
    if family.noise_process == "flow":
        return "flow"
    return str(scheduler_config.get("prediction_type", "epsilon"))


def _measure_files(info: ModelInfo) -> int:
    """Return the bytes that decisions about a model are looked up by."""
    return info.path.stat().st_size if info.is_file else info.size_bytes


def _find_similar(name: str, lora_names: list[str]) -> list[str]:
    """Return the LoRAs that may be meant: of that stem, else alike."""
    same_stem = [lora_name for lora_name in lora_names if lora_name.rpartition("/")[2] == name]
    if same_stem:  # in several folders
        return same_stem
    by_folded_name = {lora_name.casefold(): lora_name for lora_name in lora_names}
    matches = difflib.get_close_matches(name.casefold(), by_folded_name, 3, 0.4)
    return [by_folded_name[match] for match in matches]


def _read_info_or_problem(path: Path, name: str) -> LoraInfo | str:
    try:
        with explain_odd_file(path):
            return lora_file.read_lora_info(path, name)
    except StudioError as error:
        return str(error)


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return odd_files.read_json(path)
    except FileNotFoundError:
        raise BadFile(f"its {path.parent.name}/{path.name} is missing.") from None
    except (OSError, ValueError) as error:
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
