"""What is on disk to work with: models and LoRAs.

Knows: folders in diffusers layout in home/models, in the shipped assets and in folders beside the
home, single-file models of the shelf; their family, size, number format and content hash, read from
configs and headers; what the owner decided about models.
Does not know: torch; what is loaded; which LoRAs there are (lora_shelf.py); how a single file is
read (single_files.py); what a file is that is neither (loose_files.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from studio.core.families.config_values import check_config_values
from studio.core.families.family import Family
from studio.core.families.registry import FAMILIES, detect_family, find_families
from studio.core.families.unet_config import estimate_decode_elements
from studio.core.generation.family_rules import find_family_faults
from studio.core.generation.request import GenerationRequest
from studio.errors import (
    BadFile,
    InvalidSpec,
    LoraMismatch,
    ModelNotFound,
    StudioError,
    UnknownFamily,
)
from studio.settings import Settings, shipped
from studio.storage import atomic, odd_files
from studio.storage.content_hashes import ContentHashes
from studio.storage.inputs import Inputs
from studio.storage.models import model_choices, single_files
from studio.storage.models.embedding_index import EmbeddingIndex, EmbeddingInfo
from studio.storage.models.embeddings import Embeddings, build_info, read_text_widths
from studio.storage.models.file_hashes import FileHashes
from studio.storage.models.header_index import HeaderIndex
from studio.storage.models.hub_cache import find_missing_file
from studio.storage.models.loose_files import LooseFiles, Unusable
from studio.storage.models.lora_file import LoraInfo
from studio.storage.models.lora_shelf import LoraShelf
from studio.storage.models.model_configs import (
    check_is_there,
    list_chosen_files,
    list_content_files,
)
from studio.storage.models.model_file import explain_no_model
from studio.storage.models.model_folder_cache import ModelFolderCache
from studio.storage.models.model_info import DTYPE_BY_SAFETENSORS_CODE, ModelInfo
from studio.storage.models.model_options import ModelOptions, ModelOptionsStore
from studio.storage.models.names import explain_absence, select_names
from studio.storage.models.peft_config import list_files
from studio.storage.models.pickles import Pickles
from studio.storage.models.referenced_folders import ReferencedFolders
from studio.storage.models.shelf import Root, Shelf, ShelfFile, ShelfScan, has_weights_suffix
from studio.storage.models.single_file_cache import SingleFileCache
from studio.storage.models.upscalers import Upscalers
from studio.storage.odd_files import explain_odd_file, list_folder, make_printable

__all__ = ["Library", "LoraInfo", "ModelInfo", "Unusable", "get_by_name", "read_model_info"]

MODEL_KINDS = ("checkpoint", "denoiser")
T = TypeVar("T")


def get_by_name(entries: Mapping[str, T | Unusable], name: str, noun: str, location: str) -> T:
    """Look up a model.

    Args:
        entries: models by name.
        name: the one to look up; the end of it is enough where only one has that (names.py).
        noun: what messages call it, such as "model".
        location: where it was looked for, for messages.

    Raises:
        ModelNotFound: there is none of this name, or there are several that can be used; the
            message names them, or close matches.
        UnknownFamily: it cannot be used; the message says what is wrong with its folder.
    """
    usable = {key: entry for key, entry in entries.items() if not isinstance(entry, Unusable)}
    matches = [] if name in entries else select_names(name, usable)
    if len(matches) > 1:
        raise ModelNotFound(explain_absence(noun, name, location, list(usable), matches))
    matches = matches or select_names(name, entries)
    if not matches:
        raise ModelNotFound(explain_absence(noun, name, location, list(usable)))
    entry = entries[matches[0]]
    if isinstance(entry, Unusable):
        raise UnknownFamily(f"The {noun} {matches[0]} cannot be used: {entry.problem}")
    return entry


class Library:
    """The models and LoRAs of a home.

    Every call reads the disk: a model that was just copied there is listed.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._model_folders = (settings.models, shipped("assets"))
        self.inputs = Inputs(settings)
        self._hashes = ContentHashes(settings.home)
        self.pickles = Pickles(settings)
        self._index = HeaderIndex(settings.home / "cache" / "headers.json", self.pickles)
        self._loose_files = LooseFiles(settings, self._index)
        self.folders = ReferencedFolders(settings)
        # The header decides what a file is, wherever it lies; LoRAs count in their own folder last.
        own_folders = (
            settings.models,
            settings.vaes,
            settings.text_encoders,
            settings.embeddings,
            settings.upscalers,
            settings.loras,
        )
        self.shelf = Shelf(
            [Root(folder) for folder in own_folders], self._index, self.folders.list_roots
        )
        self.loras = LoraShelf(settings, self._index, self._loose_files, self.shelf)
        self.embeddings = Embeddings(self.shelf, self.pickles, self._hashes)
        self.upscalers = Upscalers(self.shelf, self.pickles, self._hashes)

        self._options = ModelOptionsStore(settings.home)
        self._single_files = SingleFileCache(settings.home / "cache" / "checkpoints.json")
        self._model_folder_cache = ModelFolderCache(self._read_whole_folder)

    def scan_models(self, scan: ShelfScan | None = None) -> list[ModelInfo | Unusable]:
        """List all models by name, folders first, the home's own before all; then other files.

        A model of the home hides a shipped one of the same name. Files in the home folder itself
        are listed too: they belong in one of its folders. What was decided about a model whose
        files were never read through is not known here, but to `get_model`.

        Args:
            scan: What the shelf saw just now, where somebody has asked it already.
        """
        return [
            self._apply_options(model, compute=False) if isinstance(model, ModelInfo) else model
            for model in self._scan_undecided(scan or self.shelf.scan())
        ]

    def _scan_undecided(self, scan: ShelfScan) -> list[ModelInfo | Unusable]:
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
        for name, (path, _) in scan.model_folders.items():
            models.setdefault(name, self._read_model(path, name))
        for file in self._select_checkpoints(scan.files):
            name = file.name if file.name not in models else file.name + file.path.suffix
            models[name] = self._read_file_model(replace(file, name=name))
        self._single_files.save()
        loose = [*self._loose_files.list_in_home(), *self._loose_files.list_misplaced()]
        files += [self._loose_files.describe(path) for path in loose]
        listed = {model.path for model in models.values()}
        others = [
            file
            for file in files
            if file.path not in listed and not single_files.is_sidecar(file.path)
        ]
        return [*models.values(), *others]

    def _select_checkpoints(self, files: Iterable[ShelfFile]) -> list[ShelfFile]:
        return [
            file
            for file in files
            if file.model_file.kind in MODEL_KINDS and file.path.parent != self._home
        ]

    def list_models(self) -> list[ModelInfo]:
        """List the models that can be run."""
        return [model for model in self.scan_models() if isinstance(model, ModelInfo)]

    def get_model(self, name: str) -> ModelInfo:
        """Look up a model.

        Args:
            name: Its name; the end of it is enough where only one has that (names.py).

        Raises:
            ModelNotFound: there is none of this name; the message names close matches.
            UnknownFamily: it cannot be run; the message says what is wrong with its folder.
        """
        entries = self._scan_undecided(self.shelf.scan())
        models = {entry.name: entry for entry in reversed(entries)}
        if name not in models:  # nobody may have read its file yet
            listed = {entry.path for entry in entries if isinstance(entry, ModelInfo)}
            for whole_name, entry in self._read_candidates(name):
                if entry.path not in listed:
                    models.setdefault(whole_name, entry)
        info = get_by_name(models, name, "model", "the library")
        return self._apply_options(info, compute=True)

    def _read_candidates(self, name: str) -> Iterable[tuple[str, ModelInfo | Unusable]]:
        """Return the models that may be called so by name, and files that nobody can tell from one.

        Of those in folders elsewhere the lists of the library say nothing.
        """
        scan = self.shelf.scan_candidates(name)
        for file in self._select_checkpoints(scan.files):
            yield file.name, self._read_file_model(file)
        for file in scan.files:
            if file.root.title and file.model_file.kind == "unknown":
                problem = explain_no_model(file.model_file)
                yield file.name, Unusable(file.name, file.path, problem)
        for scanned, root, sentence in scan.unreadable:
            if root.title:
                whole_name = root.list_names(scanned.relative)[0]
                yield whole_name, Unusable(whole_name, scanned.path, sentence)

    def list_loras(self, scan: ShelfScan | None = None) -> list[LoraInfo | Unusable]:
        """List all LoRAs by name, and what lies among the home's own and cannot be used."""
        return self.loras.list_loras(scan)

    def get_lora(self, name: str) -> LoraInfo:
        """Look up a LoRA by a name that means only one (lora_shelf.py).

        Raises:
            LoraNotFound: there is none of this name; the message names close matches.
            BadFile: the file cannot be used.
        """
        return self.loras.get(name)

    def add_lora(self, source: Path, name: str) -> LoraInfo:
        """Copy a LoRA file into home/loras. Arguments and errors are those of `LoraShelf.add`."""
        return self.loras.add(source, name)

    def describe_file(self, path: Path) -> Unusable:
        """Return what a file of weights is, and to which folder of the home it can be moved."""
        return self._loose_files.describe(path)

    def move_file(self, file: str) -> Path:
        """Move a file of weights from a folder of the home to the one where its kind belongs.

        Args:
            file: What `Unusable.file` says; any other is refused.

        Returns:
            Where it lies now.

        Raises:
            BadFile: It is not there, has no other place to go to, or that place is taken.
        """
        return self._loose_files.move(file, self.loras.list_own_files())

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
            InvalidSpec: inputs do not fit the request, settings not the model's family, or a
                prompt asks for an embedding that is not there or does not fit.
        """
        with self.shelf.look_once():
            family = FAMILIES[self.get_model(request.model).family]
            if faults := find_family_faults(request, family):
                raise InvalidSpec(faults)
            return self.check_files(request)

    def list_unread_pickles(self) -> list[Path]:
        """List the pickles of embeddings and upscalers that were not read yet."""
        return [path for _, path in self.shelf.list_pickles() if self.pickles.is_unread(path)]

    def index_embeddings(
        self, model: ModelInfo, requests: Iterable[GenerationRequest] = ()
    ) -> EmbeddingIndex:
        """Return the textual inversions as prompts for a model see them.

        Those that the LoRAs of the requests carry are among them.
        """
        widths = read_text_widths(model)
        uses = [use for request in requests for use in request.with_inline_loras().loras]
        bundled: list[EmbeddingInfo] = []
        for name in dict.fromkeys(use.name for use in uses if not use.is_inactive):
            with suppress(StudioError):  # said where LoRAs are looked up
                lora = self.get_lora(name)
                bundled += [build_info(embedding, lora.path) for embedding in lora.embeddings]
        return self.embeddings.build_index(widths, model.name, bundled)

    def check_files(self, request: GenerationRequest) -> ModelInfo:
        """Check a request as `check_request` does, but for the settings that its family refuses.

        Requests with the same model, VAE, LoRAs, image, mask and extension have the same answer, as
        far as their prompts have the same words behind `embedding:`.
        """
        with self.shelf.look_once():
            return self._check_files(request)

    def _check_files(self, request: GenerationRequest) -> ModelInfo:
        model = self.choose_vae(self.get_model(request.model), request.vae)
        check_is_there(model, *FAMILIES[model.family].components)
        self.inputs.check_request(request)
        for use in request.with_inline_loras().loras:
            lora = self.get_lora(use.name)
            if lora.family not in (None, model.family):
                raise LoraMismatch(
                    f"The LoRA {lora.name} is for {FAMILIES[lora.family].title}, but {model.name} "
                    f"is {FAMILIES[model.family].title}; choose another LoRA or model."
                )
        faults = self.index_embeddings(model, [request]).resolve([request]).faults
        if faults:
            raise InvalidSpec(faults)
        if request.active_upscaler:
            self.upscalers.get(request.active_upscaler)
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

    def get_tensors_hash(self, path: Path) -> str:
        """Return the hash by which other programs know a LoRA's file. Raises OSError, BadFile."""
        return self._hashes.get_tensors_hash(path)

    @property
    def file_hashes(self) -> FileHashes:
        """The hashes by which other programs call the files of weights."""
        return FileHashes(self._hashes)

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
            raise BadFile(
                f"{FAMILIES[info.family].title} has nothing to set; {name} stays as it is."
            )
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

    def _read_file_model(self, file: ShelfFile) -> ModelInfo | Unusable:
        """Read a single-file model."""
        # Of the home's own people see the whole file name; a path elsewhere would be lost with it.
        name = file.name if file.root.title else make_printable(file.path.name)
        if file.model_file.problem or file.model_file.obstacle:
            return replace(self._loose_files.describe(file.path), name=name)
        try:
            with explain_odd_file(file.path, "it"):
                return self._single_files.read(file)
        except StudioError as error:
            problem = f"It is {file.model_file.description}, but {error}"
            return replace(self._loose_files.describe(file.path), name=name, problem=problem)

    def _read_model(self, path: Path, name: str = "") -> ModelInfo | Unusable:
        name = name or make_printable(path.name)
        if make_printable(path.name) != path.name:
            return Unusable(
                name, path, ("its folder name contains bytes that are not text; rename it.")
            )
        try:
            with explain_odd_file(path, "it"):
                return replace(self._model_folder_cache.read(path), name=name)
        except StudioError as error:
            return Unusable(name, path, str(error))

    def _read_whole_folder(self, path: Path) -> ModelInfo:
        info = read_model_info(path, bundled=path.parent == self._model_folders[1])
        if missing := find_missing_file(path):
            raise BadFile(f"it is incomplete: {missing} is missing; download it again.")
        return info


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
        raise UnknownFamily(f"its kind is {pipeline_class:.60}; the studio supports {titles}.")
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


def _detect_variant(weights: Mapping[str, list[Path]]) -> str | None:
    """Return "fp16" if all parts have only .fp16 weights, None if all have plain ones."""
    fp16_parts = [part for part, files in weights.items() if ".fp16." in files[0].name]
    if not fp16_parts:
        return None
    if len(fp16_parts) < len(weights):
        raise BadFile(
            f"its {fp16_parts[0]} only has .fp16 weights while other parts only have plain ones; "
            "copy all in one kind."
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
        f"{problem}, only {', '.join(sorted(suffixes))}, which can contain programs; convert it "
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
