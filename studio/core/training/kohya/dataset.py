"""What kohya's keys mean to a training run: the model, images, captions, samples and checkpoints.

Knows: sd-scripts' defaults, which keys act only beside others.
Does not know: layers and rates (network.py, optimizer.py), where files are: of a path only the last
name is taken, as the name in the library.
"""

from __future__ import annotations

import math
import re

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.training.config import Precision
from studio.core.training.kohya.parser import parse_folder_name
from studio.core.training.kohya.reader import KOHYA_DEFAULT, KohyaReader
from studio.errors import InvalidSpec

PRECISIONS: dict[str, Precision] = {
    "": "float32",
    "no": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
_WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt")
# The flags that kohya allows after a sample prompt: --n, --w, --h, --d, --l, --s.
_PROMPT_FLAGS = re.compile(r"\s--\w+(?:\s.*)?$")
_UNSAFE_CHARACTERS = re.compile(r'[/\\:*?"<>|\x00-\x1f]+')
_SAVE_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "float": "float32"}


def get_base_name(path: str) -> str:
    """Return the last name of a path or hub id."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].strip()


def read_model(reader: KohyaReader, family: FamilyName | None) -> None:
    """Read the model, and which layer of its text encoder is used."""
    path = reader.read_text("pretrained_model_name_or_path")
    name = get_base_name(path)
    for suffix in _WEIGHT_SUFFIXES:
        name = name.removesuffix(suffix)
    if name:
        reader.set_field(
            "pretrained_model_name_or_path",
            "model",
            name,
            "expected in home/models under this name",
        )
    else:
        reader.mark_unresolved(
            "model",
            "pretrained_model_name_or_path",
            "not in the file; choose the model to train on.",
        )
    skip = reader.read_integer("clip_skip")
    if skip and family and not FAMILIES[family].training_clip_skip:
        reader.add_notice("inert", "clip_skip", f"{skip} has no effect on SDXL, as in kohya.")
    elif skip:
        reader.set_field("clip_skip", "clip_skip", skip)


def read_dataset(reader: KohyaReader, file_name: str) -> None:
    """Read the dataset and the name of the LoRA.

    Args:
        reader: The file's keys.
        file_name: The file's name; the LoRA's where neither key nor dataset gives one.
    """
    path = reader.read_text("train_data_dir")
    folders = reader.read_value("image_dir")
    key = "train_data_dir"
    if isinstance(folders, list) and all(isinstance(folder, str) for folder in folders):
        path = _find_common_folder(folders)
        key = "image_dir"
    dataset_name = get_base_name(path)
    if dataset_name:
        detail = "expected in home/datasets under this name"
        folder_name = parse_folder_name(dataset_name)
        if folder_name and not folders:
            detail = f"one folder, each image repeated {folder_name[0]} times"
        reader.set_field(key, "dataset", dataset_name, detail)
    else:
        reader.mark_unresolved(
            "dataset", key, "contains no folder; choose the dataset to train on."
        )
    _read_output_name(reader, dataset_name or file_name.rsplit(".", 1)[0])
    if repeats := reader.read_integer("num_repeats"):
        reader.set_field("num_repeats", "repeats", repeats)
    if words := reader.read_text("class_tokens"):
        reader.set_field(
            "class_tokens", "class_word", words, "as in kohya, used for images without a caption"
        )
    _read_dataset_options(reader)


def _find_common_folder(folders: list[str]) -> str:
    """Return the name that all folders or all their parents have; empty if there is none."""
    paths = [folder.replace("\\", "/").rstrip("/") for folder in folders if folder]
    names = {get_base_name(path) for path in paths}
    if len(names) == 1:
        return names.pop()
    parents = {get_base_name(path.rpartition("/")[0]) for path in paths}
    return parents.pop() if len(parents) == 1 else ""


def _read_output_name(reader: KohyaReader, default: str) -> None:
    output_name = _make_file_name(reader.read_text("output_name"))
    default_name = _make_file_name(default)
    if output_name:
        reader.set_field("output_name", "name", output_name[:100])
    elif default_name:
        reader.values["name"] = default_name[:100]
        reader.add_notice(
            "unknown", "output_name", f"not in the file; the LoRA is called {default_name[:60]}."
        )
    else:
        reader.mark_unresolved("name", "output_name", "not in the file; enter a name for the LoRA.")


def _make_file_name(text: str) -> str:
    return _UNSAFE_CHARACTERS.sub("-", text).strip(" .-")


def _read_dataset_options(reader: KohyaReader) -> None:
    if reader.read_text("dataset_config"):
        reader.add_notice(
            "unsupported",
            "dataset_config",
            "is the path of another file; import it too, because it overrides the image settings.",
        )
    if reader.read_text("in_json"):
        reader.mark_unresolved(
            "dataset",
            "in_json",
            "captions in a metadata file are not read; put each beside its image in a .txt file.",
        )
    extension = reader.read_text("caption_extension")
    if extension == ".txt":
        reader.add_notice("taken", "caption_extension", "captions are in .txt files.")
    else:
        reason = extension or "not in the file: kohya would look for .caption"
        reader.add_notice(
            "unsupported" if extension else "unknown",
            "caption_extension",
            f"{reason:.60}; the studio reads .txt files.",
        )
    weight = reader.read_number("prior_loss_weight")
    if weight is not None and reader.has("reg_data_dir"):
        reader.add_notice(
            "unsupported",
            "prior_loss_weight",
            f"{weight:g} applies to class images: enter it as Prior weight.",
        )
    elif weight is not None:
        reader.add_notice(
            "inert", "prior_loss_weight", "used only with class images, and there are none."
        )


def read_batch_settings(reader: KohyaReader) -> None:
    """Read batch size, seed, precision and the loss's settings."""
    for key in ("train_batch_size", "gradient_accumulation_steps"):
        if count := reader.read_integer(key):
            reader.set_field(key, key, count)
    for key in ("max_grad_norm", "noise_offset"):
        value = reader.read_number(key)
        if value is not None:
            reader.set_field(key, key, value)
    if gamma := reader.read_number("min_snr_gamma"):
        reader.set_field("min_snr_gamma", "min_snr_gamma", gamma)
    if reader.read_flag("gradient_checkpointing"):
        reader.set_field("gradient_checkpointing", "gradient_checkpointing", True)
    seed = reader.read_integer("seed")
    if seed is None:
        reader.add_notice(
            "unknown",
            "seed",
            "not in the file: kohya draws one without recording it; the studio draws and records "
            "one.",
        )
    else:
        reader.set_field("seed", "seed", seed % 2**32)
    _read_precisions(reader)


def _read_precisions(reader: KohyaReader) -> None:
    precision = reader.read_text("mixed_precision").casefold()
    if precision in PRECISIONS:
        detail = "" if precision else KOHYA_DEFAULT
        reader.set_field("mixed_precision", "precision", PRECISIONS[precision], detail)
    else:
        reader.add_fault("mixed_precision", "must be no, fp16 or bf16", precision)
    save_precision = reader.read_text("save_precision").casefold()
    if save_precision in _SAVE_PRECISIONS:
        reader.set_field("save_precision", "save_precision", _SAVE_PRECISIONS[save_precision])
    elif save_precision:
        reader.add_fault("save_precision", "must be float, fp16 or bf16", save_precision)


def read_caption_settings(reader: KohyaReader) -> None:
    """Read how captions are dropped and shuffled."""
    if rate := reader.read_number("caption_dropout_rate"):
        reader.set_field("caption_dropout_rate", "caption_dropout", rate)
    shuffles = reader.read_flag("shuffle_caption")
    keep_tokens = reader.read_integer("keep_tokens")
    if shuffles:
        reader.set_field("shuffle_caption", "shuffle_caption", True)
    if keep_tokens and shuffles:
        reader.set_field("keep_tokens", "keep_tokens", keep_tokens)
    elif keep_tokens:
        reader.add_notice("inert", "keep_tokens", "used only with shuffle_caption.")


def read_image_settings(reader: KohyaReader) -> None:
    """Read size, flips, crops, buckets, and whether latents are cached."""
    _read_resolution(reader)
    if reader.read_flag("flip_aug"):
        reader.set_field("flip_aug", "random_flip", True)
    _read_latent_cache(reader)
    _read_buckets(reader)


def _read_latent_cache(reader: KohyaReader) -> None:
    in_memory = reader.read_flag("cache_latents")
    on_disk = reader.read_flag("cache_latents_to_disk")
    random_crop = reader.read_flag("random_crop")
    reader.values["cache_latents"] = "off"
    if random_crop:
        reader.set_field("random_crop", "crop", "random")
    if random_crop and (in_memory or on_disk):
        reader.add_notice(
            "conflicting",
            "cache_latents",
            "kohya does not start with both this and random_crop; the studio then caches nothing.",
        )
    elif on_disk:
        reader.values["cache_latents"] = "disk"
        reader.add_notice("taken", "cache_latents_to_disk", "Cache latents: disk.")
    elif in_memory:
        reader.values["cache_latents"] = "memory"
        reader.add_notice("taken", "cache_latents", "Cache latents: memory.")


def _read_resolution(reader: KohyaReader) -> None:
    value = reader.read_value("resolution")
    if value is None:
        reader.add_notice(
            "unknown",
            "resolution",
            "not in the file, although kohya requires it; the model's default is used.",
        )
        return
    parts = value if isinstance(value, list) else [value]
    if isinstance(value, str):
        parts = value.split(",")
    numbers = [reader.parse_number("resolution", part) for part in parts[:3]]
    sides = [number for number in numbers if number is not None and 1 <= number <= 100_000]
    if len(sides) != len(parts) or len(sides) not in (1, 2):
        if not reader.faults:
            reader.add_fault(
                "resolution", "must be one side, or width and height such as 1024,1024", value
            )
        return
    square = int(math.sqrt(sides[0] * sides[-1])) // 8 * 8
    if set(sides) == {float(square)}:
        reader.set_field("resolution", "resolution", square)
        return
    reader.values["resolution"] = square
    reader.add_notice(
        "unsupported",
        "resolution",
        f"{' × '.join(f'{side:g}' for side in sides)} becomes a square of the same area, {square} "
        "(a multiple of 8).",
    )


def _read_buckets(reader: KohyaReader) -> None:
    enabled = reader.read_flag("enable_bucket")
    no_upscale = reader.read_flag("bucket_no_upscale")
    min_side = reader.read_integer("min_bucket_reso")
    max_side = reader.read_integer("max_bucket_reso")
    step = reader.read_integer("bucket_reso_steps")
    sides = {"min_bucket_reso": min_side, "max_bucket_reso": max_side}
    reader.values["buckets"] = enabled
    if not enabled:
        settings = sides | {"bucket_reso_steps": step, "bucket_no_upscale": no_upscale or None}
        for key, value in settings.items():
            if value is not None:
                reader.add_notice("inert", key, "used only with enable_bucket.")
        return
    reader.set_field("enable_bucket", "buckets", True)
    detail = "" if step else "kohya's default"
    step = step or 64
    reader.set_field("bucket_reso_steps", "bucket_step", step, detail)
    if no_upscale:
        reader.set_field("bucket_no_upscale", "bucket_no_upscale", True)
        for key, side in sides.items():
            if side is not None:
                reader.add_notice(
                    "conflicting",
                    key,
                    f"{side} is ignored with bucket_no_upscale: images are only reduced, to the "
                    "area of the resolution.",
                )
        return
    rounded_min = (min_side or 256) // step * step or step
    rounded_max = math.ceil((max_side or 1024) / step) * step
    _set_bucket_side(
        reader, "min_bucket_reso", field="bucket_min", side=min_side, rounded_side=rounded_min
    )
    _set_bucket_side(
        reader, "max_bucket_reso", field="bucket_max", side=max_side, rounded_side=rounded_max
    )


def _set_bucket_side(
    reader: KohyaReader, key: str, *, field: str, side: int | None, rounded_side: int
) -> None:
    detail = ""
    if side is None:
        detail = KOHYA_DEFAULT
    elif side != rounded_side:
        detail = f"rounded, because {side} is not a multiple of the step"
    reader.set_field(key, field, rounded_side, detail)


def read_monitoring(reader: KohyaReader) -> None:
    """Read how often samples are painted, checkpoints saved and the validation loss measured."""
    _read_samples(reader)
    _read_checkpoints(reader)
    _read_validation(reader)


def _read_checkpoints(reader: KohyaReader) -> None:
    steps = reader.read_integer("save_every_n_steps")
    epochs = reader.read_integer("save_every_n_epochs")
    last_epochs = reader.read_integer("save_last_n_epochs")
    last_steps = reader.read_integer("save_last_n_steps")
    if steps:
        reader.set_field("save_every_n_steps", "checkpoint_every", steps)
        if epochs:
            reader.add_notice(
                "conflicting",
                "save_every_n_epochs",
                "kohya applies both; the studio counts either steps or epochs, here steps.",
            )
    elif epochs:
        reader.set_field("save_every_n_epochs", "checkpoint_every_epochs", epochs)
    if steps or epochs:
        reader.values["checkpoints_total_limit"] = 0
    if steps and last_steps:
        reader.set_field(
            "save_last_n_steps",
            "checkpoints_total_limit",
            last_steps // steps + 1,
            f"covers the last {last_steps} steps",
        )
    elif epochs and last_epochs and not steps:
        reader.set_field("save_last_n_epochs", "checkpoints_total_limit", last_epochs)


def _read_validation(reader: KohyaReader) -> None:
    split = reader.read_number("validation_split")
    steps = reader.read_integer("validate_every_n_steps")
    epochs = reader.read_integer("validate_every_n_epochs")
    if not split:
        return
    reader.set_field("validation_split", "validation_split", split)
    interval = "once per epoch"
    if steps:
        reader.set_field("validate_every_n_steps", "validate_every", steps)
        interval = f"every {steps} steps"
    if epochs and (steps or epochs > 1):
        reader.add_notice("unsupported", "validate_every_n_epochs", f"{epochs} becomes {interval}.")


def _read_samples(reader: KohyaReader) -> None:
    """Read the sample prompts; kohya paints only at an interval, and one in epochs wins."""
    prompt_text = reader.read_text("sample_prompts")
    steps = reader.read_integer("sample_every_n_steps")
    epochs = reader.read_integer("sample_every_n_epochs")
    if reader.as_meant and prompt_text and not steps and not epochs:
        epochs = 1
    if steps and epochs:
        note = f"overridden by sample_every_n_epochs = {epochs}."
        reader.add_notice("conflicting", "sample_every_n_steps", note)
    if not prompt_text:
        for key, value in (("sample_every_n_epochs", epochs), ("sample_every_n_steps", steps)):
            if value:
                reader.add_notice("inert", key, "there are no sample prompts.")
    elif not steps and not epochs:
        reader.add_notice(
            "conflicting",
            "sample_prompts",
            "no interval is set (sample_every_n_epochs or sample_every_n_steps), so neither kohya "
            "nor the studio generates samples.",
        )
    elif lines := _read_prompt_lines(reader, prompt_text):
        reader.set_field("sample_prompts", "sample_prompts", "\n".join(lines))
        if epochs:
            reader.set_field("sample_every_n_epochs", "sample_every_epochs", epochs)
        else:
            reader.set_field("sample_every_n_steps", "sample_every", steps)


def _read_prompt_lines(reader: KohyaReader, text: str) -> list[str]:
    """Return the prompts: the GUI's file has them, sd-scripts' only the path of a file."""
    if reader.file_format != "gui" and re.search(r"\.(txt|toml|json)$|^[/~]|^\w:[\\/]", text):
        reader.add_notice(
            "unsupported",
            "sample_prompts",
            f"they are in another file ({get_base_name(text):.60}); enter them as Sample prompts.",
        )
        return []
    lines = []
    for line in text.splitlines():
        prompt_line = _PROMPT_FLAGS.sub("", line).strip()
        if not prompt_line or prompt_line.startswith("#"):
            continue
        if prompt_line != line.strip():
            reader.add_notice(
                "unsupported",
                "sample_prompts",
                "options that follow a prompt (--…) are ignored: samples have their own settings.",
            )
        # The studio's own grammar cannot read every prompt of kohya's.
        try:
            plan_prompt(prompt_line)
        except ValueError as error:
            note = f"{prompt_line[:40]!r} is left out: {error!s:.100}"
            reader.add_notice("unsupported", "sample_prompts", note)
        else:
            lines.append(prompt_line)
    if len("\n".join(lines)) > 10_000:
        raise InvalidSpec(["sample_prompts: must be at most 10,000 characters long."])
    if not lines:
        reader.add_notice("unsupported", "sample_prompts", "no usable prompt is left.")
    return lines
