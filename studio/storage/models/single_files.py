"""Single-file checkpoints of Stable Diffusion: what they are and where each part lies in them.

Knows: the prefixes of the parts, the autoencoder beside a file. Does not know: what is decided
about a model and what is taken from the shelf (model_choices.py); what a config means
(core/families); torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.core.families.checkpoint_configs import (
    CHECKPOINT_FACTS,
    CheckpointFacts,
    build_clip_config,
    build_open_clip_config,
    build_scheduler_config,
)
from studio.core.families.config_values import check_config_values
from studio.core.families.registry import FAMILIES
from studio.core.families.unet_config import LATENT_CHANNELS, estimate_decode_elements
from studio.core.families.unet_shapes import build_unet_config
from studio.core.families.vae_shapes import build_vae_config
from studio.errors import MAX_LISTED_NAMES, BadFile
from studio.storage import atomic
from studio.storage.models.denoiser_header import EMA_PART, read_shape, says_v_prediction_beside
from studio.storage.models.header_rules import DENOISER_PREFIXES, VAE_PREFIXES
from studio.storage.models.model_configs import INDEX, SCHEDULER
from studio.storage.models.model_file import ModelFile
from studio.storage.models.model_info import (
    DTYPE_BY_SAFETENSORS_CODE,
    ModelInfo,
    Naming,
    PartFile,
)
from studio.storage.models.shelf import ShelfFile

Shapes = dict[str, tuple[int, ...]]
PREDICTION_TYPES = {"v": "v_prediction", "epsilon": "epsilon"}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1}
VAE_SIDECAR_ENDING = ".vae.safetensors"
# Where text encoders lie in a file of all parts: of the original repositories, of ComfyUI, of
# diffusers' names with the folder before.
_TEXT_PREFIXES = (
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.0.model.",
    "conditioner.embedders.1.model.",
    "conditioner.embedders.1.transformer.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_h.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoder.",
    "text_encoder_2.",
)
SHELF_PREFIXES = ("", "transformer.")  # of text encoders in files of their own
# By the first tensor: whose names it is by.
_TEXT_NAMINGS: tuple[tuple[str, Naming], ...] = (
    ("text_model.embeddings.token_embedding.weight", "clip"),
    ("embeddings.token_embedding.weight", "bare clip"),
    ("token_embedding.weight", "open clip"),
)
# Of tensors that are no weights of a part: counted positions, OpenCLIP's temperature, scales.
_NO_WEIGHTS = ("position_ids", "logit_scale", "scale_weight", "weight_scale", "input_scale")
COMPONENT_TITLES = {"vae": "autoencoder (VAE)", "text_encoder_2": "second text encoder"}


def read_single_file(shelf_file: ShelfFile) -> ModelInfo:
    """Read what a single-file model is, from its header alone.

    Args:
        shelf_file: A checkpoint or a denoiser that nothing speaks against, of a family in
            `CHECKPOINT_FACTS`.

    Returns:
        The model as its file says, with `missing` parts if there are none of them in it.

    Raises:
        BadFile: It is not whole; a sentence that begins with "its".
    """
    identified, path = shelf_file.model_file, shelf_file.path
    family, facts = FAMILIES[identified.family], CHECKPOINT_FACTS[identified.family]
    shapes = read_shapes(path)
    unet = _find_unet(path, shapes)
    check_config_values("header", unet.config)
    parts = {family.denoiser: unet, **_find_text_encoders(path, shapes, facts)}
    sidecar = find_sidecar(path)
    vae_path = sidecar or path
    vae = find_vae(vae_path, read_shapes(sidecar) if sidecar else shapes, facts.scaling_factor)
    if vae:
        check_channels(vae, sidecar.name if sidecar else "in its file")
        parts["vae"] = vae
    config_facts = family.read_config(unet.config, {})
    if family.pooled_prompt and "addition_embed_type" not in unet.config:
        raise BadFile("its U-Net takes no sizes, as those of SDXL do.")
    prediction_type = PREDICTION_TYPES[identified.prediction]
    dtype = DTYPE_BY_SAFETENSORS_CODE.get(identified.dtype, identified.dtype)
    component_bytes = {
        name: part.num_elements * get_dtype_bytes(dtype) for name, part in parts.items()
    }
    missing = {name: explain_missing(name) for name in family.components if name not in parts}
    vae_config = vae.config if vae else {"block_out_channels": (128, 256)}
    overrides = []
    if says_v_prediction_beside(path):
        overrides.append(("prediction_type beside", "v_prediction"))
    return ModelInfo(
        name=shelf_file.name,
        path=path,
        family=family.name,
        prediction_type=prediction_type,
        native_size=facts.get_native_size(prediction_type),
        dtype=dtype,
        size_bytes=sum(component_bytes.values()),
        variant=None,
        bundled=False,
        activation_elements_per_pixel=config_facts.activation_elements_per_pixel,
        decode_elements_per_pixel=estimate_decode_elements(vae_config),
        is_inpainting=config_facts.is_inpainting,
        component_bytes=component_bytes | dict.fromkeys(missing, 0),
        parts=parts,
        configs={
            SCHEDULER: build_scheduler_config(prediction_type, identified.is_zero_snr),
            INDEX: {"_class_name": family.pipeline_classes[0]},
            **{
                name: {"pad_token": token}
                for name, token in zip(family.tokenizers, facts.pad_tokens, strict=True)
            },
        },
        missing=missing,
        overrides=tuple(overrides),
        notes=_list_notes(identified),
    )


def explain_missing(component: str, fitting: Sequence[str] = ()) -> str:
    """Return what to do about a part that a file lacks.

    Args:
        component: Its folder in diffusers' layout.
        fitting: Names of the files of the shelf that could be it, where there are several.
    """
    title = COMPONENT_TITLES.get(component, "text encoder")
    noun = "VAE" if component == "vae" else "text encoder"
    if fitting:
        names = ", ".join(fitting[:MAX_LISTED_NAMES])
        rest = len(fitting) - MAX_LISTED_NAMES
        more = f" and {rest} more" if rest > 0 else ""
        choose = "a VAE in the settings, or permanently" if component == "vae" else "one"
        return (
            f"its file has no {title}. {len(fitting)} {noun}s fit: {names}{more}. Choose {choose} "
            'under "Model settings" in the Models tab.'
        )
    folder = "vae" if component == "vae" else "text_encoders"
    otherwise = ", or choose a VAE in the settings" if component == "vae" else ""
    return (
        f"its file has no {title}. Put one that fits into {folder}/ in the home folder{otherwise}."
    )


def _list_notes(identified: ModelFile) -> tuple[str, ...]:
    if EMA_PART in identified.contents:
        return ("Its trained weights are used, not their moving average (EMA).",)
    return ()


# ---- parts in a file ----------------------------------------------------------------------------


def read_shapes(path: Path) -> Shapes:
    """Return the shapes of a file's tensors. Raises BadFile."""
    shapes: Shapes = {}
    for name, entry in atomic.read_safetensors_header(path).items():
        shape = None if name == "__metadata__" else read_shape(entry)
        if shape is not None:
            shapes[name] = shape
    return shapes


def _find_unet(path: Path, shapes: Shapes) -> PartFile:
    prefix = next(
        (
            prefix
            for prefix in (*DENOISER_PREFIXES, "")
            if f"{prefix}input_blocks.0.0.weight" in shapes or f"{prefix}conv_in.weight" in shapes
        ),
        "",
    )
    inner = strip_prefix(shapes, prefix)
    naming: Naming = "ldm" if "input_blocks.0.0.weight" in inner else "diffusers"
    return PartFile(path, prefix, naming, build_unet_config(inner), _count_elements(inner))


def find_vae(path: Path, shapes: Shapes, scaling_factor: float) -> PartFile | None:
    """Return the autoencoder in a file; None if there is none.

    Args:
        path: The file.
        shapes: Of its tensors.
        scaling_factor: Of the family that it is used with.

    Raises:
        BadFile: It is not whole; a sentence that begins with "its".
    """
    for prefix in VAE_PREFIXES:
        if f"{prefix}decoder.conv_in.weight" not in shapes:
            continue
        inner = strip_prefix(shapes, prefix)
        naming: Naming = (
            "diffusers" if any(name.startswith("encoder.down_blocks.") for name in inner) else "ldm"
        )
        config = build_vae_config(inner, scaling_factor)
        check_config_values("header", config)
        return PartFile(path, prefix, naming, config, _count_elements(inner))
    return None


def _find_text_encoders(path: Path, shapes: Shapes, facts: CheckpointFacts) -> dict[str, PartFile]:
    """Return the text encoders in a checkpoint, by their folders in diffusers' layout."""
    parts: dict[str, PartFile] = {}
    for number, width in enumerate(facts.text_widths):
        part = find_text_encoder(path, shapes, _TEXT_PREFIXES, width, has_projection=number > 0)
        if part:
            parts["text_encoder_2" if number else "text_encoder"] = part
    return parts


def find_text_encoder(
    path: Path, shapes: Shapes, prefixes: Sequence[str], width: int, has_projection: bool
) -> PartFile | None:
    """Return the text encoder of a width in a file; None if there is none.

    Args:
        path: The file.
        shapes: Of its tensors.
        prefixes: What the names of its tensors may begin with.
        width: Of its vectors.
        has_projection: Whether it also has to give a pooled prompt.

    Raises:
        BadFile: It is not whole; a sentence that begins with "its".
    """
    for prefix in prefixes:
        for name, naming in _TEXT_NAMINGS:
            words = shapes.get(prefix + name)
            if not words or len(words) != 2 or words[1] != width:
                continue
            inner = strip_prefix(shapes, prefix)
            if naming == "bare clip":
                inner = {f"text_model.{name}": shape for name, shape in inner.items()}
            build_config = build_open_clip_config if naming == "open clip" else build_clip_config
            config = build_config(inner, has_projection)
            check_config_values("header", config)
            return PartFile(path, prefix, naming, config, _count_elements(inner))
    return None


def find_sidecar(path: Path) -> Path | None:
    """Return the autoencoder that stands beside a checkpoint under its name, if there is one."""
    sidecar = path.with_name(path.stem + VAE_SIDECAR_ENDING)
    return sidecar if sidecar.is_file() else None


def is_sidecar(path: Path) -> bool:
    """Return whether a file is an autoencoder that stands beside a checkpoint under its name."""
    if not path.name.endswith(VAE_SIDECAR_ENDING):
        return False
    return path.with_name(path.name.removesuffix(VAE_SIDECAR_ENDING) + ".safetensors").is_file()


def check_channels(vae: PartFile, subject: str) -> None:
    """Raise BadFile if the latents of an autoencoder are of another family's kind."""
    channels = vae.config["latent_channels"]
    if channels != LATENT_CHANNELS:
        raise BadFile(
            f"its autoencoder {subject} has latents with {channels} channels; Stable Diffusion "
            f"uses {LATENT_CHANNELS}."
        )


def get_dtype_bytes(dtype: str) -> int:
    """Return the bytes of a number in a format, as `ModelInfo.dtype` says it."""
    return DTYPE_BYTES.get(dtype, 4)


def strip_prefix(shapes: Shapes, prefix: str) -> Shapes:
    """Return the shapes of the tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _count_elements(shapes: Mapping[str, Sequence[int]]) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(_NO_WEIGHTS))
