"""What a model is made of in the end: its own parts, those that the owner chose, those that fit.

Knows: in which order a part is looked for, what the owner can decide. Does not know: how files are
read (single_files.py), where decisions are kept (model_options.py); torch.

An autoencoder comes from the first of these that has it: the request, what the owner chose for the
model, a file `<checkpoint>.vae.safetensors` beside it, the model itself, the only file on the shelf
that fits. Text encoders likewise, by their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from studio.core.families.checkpoint_configs import CHECKPOINT_FACTS, get_text_width
from studio.core.families.family import TEXT_ENCODERS
from studio.core.families.model_advice import V_PREDICTION_QUESTION, asks_about_prediction
from studio.core.families.registry import FAMILIES
from studio.core.families.unet_config import LATENT_CHANNELS, get_vae_scale_factor
from studio.errors import BadFile, ModelNotFound
from studio.storage.models import model_file
from studio.storage.models.model_configs import SCHEDULER, read_config
from studio.storage.models.model_info import ModelInfo, PartFile
from studio.storage.models.model_options import ModelOptions
from studio.storage.models.shelf import Shelf, ShelfFile
from studio.storage.models.single_files import (
    COMPONENT_TITLES,
    SHELF_PREFIXES,
    explain_missing,
    find_text_encoder,
    find_vae,
    get_dtype_bytes,
    is_sidecar,
    read_shapes,
    strip_prefix,
)

ZERO_SNR_KEY = "rescale_betas_zero_snr"


def apply_options(info: ModelInfo, shelf: Shelf, options: ModelOptions) -> ModelInfo:
    """Return a model as it was decided about, with the parts that it lacks.

    Args:
        info: As its own files say.
        shelf: Where parts are looked for.
        options: What was decided.
    """
    if FAMILIES[info.family].noise_process == "flow":
        return info
    if (
        info.is_file
        and not options.prediction_type
        and asks_about_prediction(info.name, info.prediction_type)
    ):
        info = replace(info, notes=(*info.notes, V_PREDICTION_QUESTION))
    return _choose_parts(_override_prediction(info, options), shelf, options)


def _override_prediction(info: ModelInfo, options: ModelOptions) -> ModelInfo:
    prediction_type = options.prediction_type or info.prediction_type
    if prediction_type == info.prediction_type and options.is_zero_snr is None:
        return info
    config = read_config(info, SCHEDULER)
    overrides = list(info.overrides)
    if prediction_type != info.prediction_type:
        overrides.append(("prediction_type", prediction_type))
        config["prediction_type"] = prediction_type
    if options.is_zero_snr not in (None, bool(config.get(ZERO_SNR_KEY))):
        overrides.append(("zero_snr", str(options.is_zero_snr)))
        config[ZERO_SNR_KEY] = options.is_zero_snr
    native_size = info.native_size
    if info.is_file:
        native_size = CHECKPOINT_FACTS[info.family].get_native_size(prediction_type)
    return replace(
        info,
        prediction_type=prediction_type,
        native_size=native_size,
        configs={**info.configs, SCHEDULER: config},
        overrides=tuple(overrides),
    )


def _choose_parts(info: ModelInfo, shelf: Shelf, options: ModelOptions) -> ModelInfo:
    """Return a model with the parts that were chosen for it, and those that only one file fits.

    A part stays missing where several fit or none does, and where what was chosen is gone.
    """
    if options.vae:
        info = _take_chosen(info, "vae", shelf, options.vae)
    elif "vae" in info.missing:
        names = [file.name for file in list_fitting_vaes(info, shelf)]
        info = _take_only(info, "vae", shelf, names)
    for component in FAMILIES[info.family].part_folders[TEXT_ENCODERS]:
        name = options.text_encoders.get(component, "")
        if name:
            info = _take_chosen(info, component, shelf, name)
        elif component in info.missing:
            names = list_fitting_text_encoders(info, component, shelf)
            info = _take_only(info, component, shelf, names)
    return info


def _take_only(info: ModelInfo, component: str, shelf: Shelf, names: Sequence[str]) -> ModelInfo:
    """Return a model with the only part that fits; of several it is said which those are."""
    if len(names) == 1:
        return _take_chosen(info, component, shelf, names[0], is_only=True)
    return replace(info, missing={**info.missing, component: explain_missing(component, names)})


def _take_chosen(
    info: ModelInfo, component: str, shelf: Shelf, name: str, is_only: bool = False
) -> ModelInfo:
    title = COMPONENT_TITLES.get(component, "text encoder")
    try:
        part = (
            load_vae_part(info, shelf, name)
            if component == "vae"
            else load_text_part(info, component, shelf, name)
        )
    except (ModelNotFound, BadFile) as error:
        note = f"the {title} chosen for it cannot be used: {error}"
        return replace(info, missing={**info.missing, component: note})
    if is_only:
        note = f"It has no {title} of its own; it uses {name}, the only one here that fits."
        info = replace(info, notes=(*info.notes, note))
    return info.with_part(component, part, get_dtype_bytes(info.dtype))


def load_vae_part(info: ModelInfo, shelf: Shelf, name: str) -> PartFile:
    """Return an autoencoder of the shelf for a model.

    Raises:
        ModelNotFound: There is none of this name.
        BadFile: It cannot be used, or is of another number of channels.
    """
    file = shelf.get_file("vae", name)
    family = FAMILIES[info.family]
    facts = CHECKPOINT_FACTS.get(info.family)
    if facts is None:
        raise BadFile(f"The autoencoder of {family.title} cannot be replaced; leave VAE empty.")
    try:
        part = find_vae(file.path, read_shapes(file.path), facts.scaling_factor)
    except BadFile as error:
        raise BadFile(f"The VAE {name} cannot be used: {error}") from None
    channels = part.config["latent_channels"] if part else 0
    if part is None or channels != LATENT_CHANNELS:
        raise BadFile(
            f"The VAE {name} has latents with {channels} channels, but {info.name} uses "
            f"{LATENT_CHANNELS}; choose another VAE."
        )
    if "vae" in info.missing:
        _check_scale(info, {}, part, name)  # the usual eight pixels
        return part
    own_config = read_config(info, "vae")
    _check_scale(info, own_config, part, name)
    # The one thing that shapes do not say: all but toys have 32 groups.
    groups = own_config.get("norm_num_groups", 32)
    return replace(part, config={**part.config, "norm_num_groups": groups})


def _check_scale(info: ModelInfo, own_config: Mapping[str, Any], part: PartFile, name: str) -> None:
    """Raise BadFile if an autoencoder makes pictures of another size than the model's own."""
    scales = [get_vae_scale_factor(config) for config in (own_config, part.config)]
    if scales[0] != scales[1]:
        raise BadFile(
            f"The VAE {name} makes {scales[1]} pixels per side from a latent, but {info.name} "
            f"expects {scales[0]}; choose another VAE."
        )


def load_text_part(info: ModelInfo, component: str, shelf: Shelf, name: str) -> PartFile:
    """Return a text encoder of the shelf for a model.

    Raises:
        ModelNotFound: There is none of this name.
        BadFile: It cannot be used, is of another width, or the model has no such part.
    """
    file = shelf.get_file("text encoder", name)
    components = FAMILIES[info.family].part_folders[TEXT_ENCODERS]
    if component not in components or info.family not in CHECKPOINT_FACTS:
        raise BadFile(f"The {component} of {info.name} cannot be chosen; leave it out.")
    number = components.index(component)
    width = CHECKPOINT_FACTS[info.family].text_widths[number]
    part = find_text_encoder(
        file.path, read_shapes(file.path), SHELF_PREFIXES, width, has_projection=number > 0
    )
    if part is None:
        raise BadFile(
            f"The text encoder {name} is not {width} numbers wide, as {info.name} needs; choose "
            "another."
        )
    return part


def list_fitting_vaes(info: ModelInfo, shelf: Shelf) -> list[ShelfFile]:
    """List the autoencoders of the shelf that a model may take without being asked.

    Those of SD 1.x and SDXL are of one shape: only the name says which is for SDXL.
    """
    return [
        file
        for file in shelf.list_files("vae")
        if not file.model_file.problem
        and not is_sidecar(file.path)
        and model_file.count_latent_channels(file.model_file) == LATENT_CHANNELS
        and ("xl" in file.name.lower()) == (info.family == "sdxl")
    ]


def list_fitting_text_encoders(info: ModelInfo, component: str, shelf: Shelf) -> list[str]:
    """List the names of the shelf's text encoders that are as wide as a part of a model."""
    components = FAMILIES[info.family].part_folders[TEXT_ENCODERS]
    width = CHECKPOINT_FACTS[info.family].text_widths[components.index(component)]
    names = []
    for file in shelf.list_files("text encoder"):
        if file.model_file.problem:
            continue
        shapes = read_shapes(file.path)
        if any(get_text_width(strip_prefix(shapes, prefix)) == width for prefix in SHELF_PREFIXES):
            names.append(file.name)
    return names
