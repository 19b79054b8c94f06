"""What kohya's keys mean to a training run: the model, pictures, captions, and what is saved on the way.

Knows: sd-scripts' defaults, which keys act only beside others. Does not know: rates and layers (`kohya_rules`, `kohya_rates`),
where anything lies: of a path only the last name is taken, as the name in the library.
"""

from __future__ import annotations

import math
import re

from studio.core.catalog import Family
from studio.core.generation import prompt as prompts
from studio.core.training.config import Precision
from studio.core.training.kohya.parser import concept
from studio.core.training.kohya.reader import Reader
from studio.errors import InvalidSpec

PRECISIONS: dict[str, Precision] = {
    "": "float32",
    "no": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
_WEIGHTS = (".safetensors", ".ckpt", ".pt")
_FLAGS = re.compile(
    r"\s--\w+(?:\s.*)?$"
)  # what kohya writes after a sample prompt: --n, --w, --h, --d, --l, --s
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]+')


def last(path: str) -> str:
    """The last name of a path or hub id."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].strip()


def model(read: Reader, family: Family | None) -> None:
    """Which model, and how its text encoder is read."""
    path = read.text("pretrained_model_name_or_path")
    name = last(path)
    for ending in _WEIGHTS:
        name = name.removesuffix(ending)
    if name:
        read.take(
            "pretrained_model_name_or_path",
            "model",
            name,
            "to be found in home/models by this name",
        )
    else:
        read.cannot(
            "model",
            "pretrained_model_name_or_path",
            "is not in the file; which model shall be trained?",
        )
    skip = read.whole("clip_skip")
    if skip and family == "sdxl":
        read.say("inert", "clip_skip", f"{skip} has no effect on SDXL, as in kohya.")
    elif skip:
        read.take("clip_skip", "clip_skip", skip)


def dataset(read: Reader, name: str) -> None:
    """Which pictures, and what the LoRA will be called."""
    path, folders = read.text("train_data_dir"), read.any("image_dir")
    if isinstance(folders, list) and all(isinstance(one, str) for one in folders):
        found = {last(one) for one in folders if one}
        above = {
            last(one.replace("\\", "/").rstrip("/").rpartition("/")[0]) for one in folders if one
        }
        path = found.pop() if len(found) == 1 else above.pop() if len(above) == 1 else ""
        key = "image_dir"
    else:
        key = "train_data_dir"
    if last(path):
        inside = concept(last(path))
        read.take(
            key,
            "dataset",
            last(path),
            f"one folder, each picture {inside[0]} times"
            if inside and not folders
            else "to be found in home/datasets by this name",
        )
    else:
        read.cannot("dataset", key, "names no folder; which dataset shall be trained on?")
    output = _UNSAFE.sub("-", read.text("output_name")).strip(" .-")
    called = output or _UNSAFE.sub("-", last(path) or name.rsplit(".", 1)[0]).strip(" .-")
    if output:
        read.take("output_name", "name", output[:100])
    elif called:
        read.values["name"] = called[:100]
        read.say("unknown", "output_name", f"is not in the file; the LoRA is called {called[:60]}.")
    else:
        read.cannot("name", "output_name", "is not in the file; what shall the LoRA be called?")
    if repeats := read.whole("num_repeats"):
        read.take("num_repeats", "repeats", repeats)
    if words := read.text("class_tokens"):
        read.take("class_tokens", "class_word", words, "as kohya: the caption of pictures without")
    _beside(read)


def _beside(read: Reader) -> None:
    if read.text("dataset_config"):
        read.say(
            "unsupported",
            "dataset_config",
            "is the path of another file; give that one too, as it decides over the pictures.",
        )
    if read.text("in_json"):
        read.cannot(
            "dataset",
            "in_json",
            "captions in one metadata file are not read; put each beside its picture (.txt).",
        )
    ending = read.text("caption_extension")
    if ending == ".txt":
        read.say("taken", "caption_extension", "captions are in .txt files.")
    else:
        told = ending or "not in the file: kohya looks for .caption"
        read.say(
            "unsupported" if ending else "unknown",
            "caption_extension",
            f"{told:.60}; the studio reads .txt files.",
        )
    weight = read.number("prior_loss_weight")
    if weight is not None and read.has("reg_data_dir"):
        read.say(
            "unsupported",
            "prior_loss_weight",
            f"{weight:g} goes with class pictures: give it as the prior weight.",
        )
    elif weight is not None:
        read.say(
            "inert", "prior_loss_weight", "counts only with class pictures, and there are none."
        )


def batches(read: Reader) -> None:
    """How many pictures a step, and the numbers that go with the machine."""
    for key, field in (
        ("train_batch_size", "batch"),
        ("gradient_accumulation_steps", "accumulation"),
    ):
        if found := read.whole(key):
            read.take(key, field, found)
    for key, field in (("max_grad_norm", "max_grad_norm"), ("noise_offset", "noise_offset")):
        if (value := read.number(key)) is not None:
            read.take(key, field, value)
    if gamma := read.number("min_snr_gamma"):
        read.take("min_snr_gamma", "min_snr_gamma", gamma)
    if read.flag("gradient_checkpointing"):
        read.take("gradient_checkpointing", "gradient_checkpointing", True)
    seed = read.whole("seed")
    if seed is None:
        read.say(
            "unknown",
            "seed",
            "is not in the file: kohya draws one and forgets it; the studio draws one and records it.",
        )
    else:
        read.take("seed", "seed", seed % 2**32)
    told = read.text("mixed_precision").casefold()
    if told in PRECISIONS:
        read.take(
            "mixed_precision",
            "precision",
            PRECISIONS[told],
            "" if told else "not in the file: kohya's own",
        )
    else:
        read.fault("mixed_precision", "has to be no, fp16 or bf16", told)
    saved = read.text("save_precision").casefold()
    if saved in ("fp16", "bf16", "float"):
        read.take(
            "save_precision",
            "save_precision",
            {"fp16": "float16", "bf16": "bfloat16", "float": "float32"}[saved],
        )
    elif saved:
        read.fault("save_precision", "has to be float, fp16 or bf16", saved)


def captions(read: Reader) -> None:
    """What is done to captions."""
    if rate := read.number("caption_dropout_rate"):
        read.take("caption_dropout_rate", "caption_dropout", rate)
    shuffled, kept = read.flag("shuffle_caption"), read.whole("keep_tokens")
    if shuffled:
        read.take("shuffle_caption", "shuffle_caption", True)
    if kept and shuffled:
        read.take("keep_tokens", "keep_tokens", kept)
    elif kept:
        read.say("inert", "keep_tokens", "counts only with shuffle_caption.")


def pictures(read: Reader) -> None:
    """Size, buckets, crops, and whether they are encoded once."""
    side = _side(read)
    if read.flag("flip_aug"):
        read.take("flip_aug", "flip", True)
    kept, on_disk, random = (
        read.flag("cache_latents"),
        read.flag("cache_latents_to_disk"),
        read.flag("random_crop"),
    )
    if random:
        read.take("random_crop", "crop", "random")
    if random and (kept or on_disk):
        read.say(
            "conflicting",
            "cache_latents",
            "kohya does not start with this and random_crop; the studio keeps no latents then.",
        )
        kept = on_disk = False
    read.values["cache_latents"] = "disk" if on_disk else "memory" if kept else "off"
    if kept or on_disk:
        read.say(
            "taken",
            "cache_latents_to_disk" if on_disk else "cache_latents",
            f"Keep latents: {read.values['cache_latents']}.",
        )
    _buckets(read, side)


def _side(read: Reader) -> int | None:
    value = read.any("resolution")
    if value is None:
        read.say(
            "unknown",
            "resolution",
            "is not in the file, though kohya needs it; the model's own size is taken.",
        )
        return None
    parts = (
        value.split(",")
        if isinstance(value, str)
        else value
        if isinstance(value, list)
        else [value]
    )
    found = [
        number
        for number in (read.as_number("resolution", part) for part in parts[:3])
        if number is not None
    ]
    if (
        len(found) != len(parts)
        or not 1 <= len(found) <= 2
        or not all(1 <= number <= 100_000 for number in found)
    ):
        if not read.faults:
            read.fault(
                "resolution", "has to be one side, or width and height such as 1024,1024", value
            )
        return None
    side = int(math.sqrt(found[0] * found[-1])) // 8 * 8
    if {float(side)} == set(found):
        read.take("resolution", "resolution", side)
    else:
        read.values["resolution"] = side
        read.say(
            "unsupported",
            "resolution",
            f"{' × '.join(f'{one:g}' for one in found)} is taken as a square of the same area, "
            f"{side} (a multiple of 8).",
        )
    return side


def _buckets(read: Reader, side: int | None) -> None:
    on, whole = read.flag("enable_bucket"), read.flag("bucket_no_upscale")
    least, most, step = (
        read.whole("min_bucket_reso"),
        read.whole("max_bucket_reso"),
        read.whole("bucket_reso_steps"),
    )
    given = (("min_bucket_reso", least), ("max_bucket_reso", most), ("bucket_reso_steps", step))
    read.values["buckets"] = on
    if not on:
        for key, value in (*given, ("bucket_no_upscale", whole or None)):
            if value is not None:
                read.say("inert", key, "counts only with enable_bucket.")
        return
    read.take("enable_bucket", "buckets", True)
    step = step or 64
    read.take("bucket_reso_steps", "bucket_step", step, "" if given[2][1] else "kohya's own")
    if whole:
        read.take("bucket_no_upscale", "bucket_no_upscale", True)
        for key, value in given[:2]:
            if value is not None:
                read.say(
                    "conflicting",
                    key,
                    f"{value} is ignored with bucket_no_upscale: pictures are only made smaller, to the "
                    "area of "
                    "the resolution.",
                )
        return
    for key, field, value in (
        ("min_bucket_reso", "bucket_min", (least or 256) // step * step or step),
        ("max_bucket_reso", "bucket_max", -(-(most or 1024) // step) * step),
    ):
        asked = dict(given)[key]
        told = (
            "not in the file: kohya's own"
            if asked is None
            else f"{asked} is no multiple of the step"
            if asked != value
            else ""
        )
        read.take(key, field, value, told)


def watching(read: Reader) -> None:
    """Samples, checkpoints, validation."""
    _samples(read)
    steps, epochs = (
        read.whole("save_every_n_steps") or None,
        read.whole("save_every_n_epochs") or None,
    )
    kept, last_steps = (
        read.whole("save_last_n_epochs") or None,
        read.whole("save_last_n_steps") or None,
    )
    if steps:
        read.take("save_every_n_steps", "checkpoint_every", steps)
        if epochs:
            read.say(
                "conflicting",
                "save_every_n_epochs",
                "in kohya both act; the studio counts in steps or in epochs: in steps here.",
            )
    elif epochs:
        read.take("save_every_n_epochs", "checkpoint_every_epochs", epochs)
    if steps or epochs:
        read.values["keep_checkpoints"] = 0
    if steps and last_steps:
        read.take(
            "save_last_n_steps",
            "keep_checkpoints",
            last_steps // steps + 1,
            f"those of the last {last_steps} steps",
        )
    elif epochs and kept and not steps:
        read.take("save_last_n_epochs", "keep_checkpoints", kept)
    if share := read.number("validation_split"):
        read.take("validation_split", "validation_share", share)
    every, rounds = read.whole("validate_every_n_steps"), read.whole("validate_every_n_epochs")
    if every and share:
        read.take("validate_every_n_steps", "validate_every", every)
    if rounds and share and (every or rounds > 1):
        read.say(
            "unsupported",
            "validate_every_n_epochs",
            f"{rounds} is taken as {f'every {every} steps' if every else 'once an epoch'}.",
        )


def _samples(read: Reader) -> None:
    """Kohya paints only at an interval; one in epochs wins."""
    told = read.text("sample_prompts")
    steps, epochs = (
        read.whole("sample_every_n_steps") or None,
        read.whole("sample_every_n_epochs") or None,
    )
    if read.as_meant and told and not steps and not epochs:
        epochs = 1
    if steps and epochs:
        read.say(
            "conflicting", "sample_every_n_steps", f"sample_every_n_epochs = {epochs} wins over it."
        )
    if not told:
        for key, value in (("sample_every_n_epochs", epochs), ("sample_every_n_steps", steps)):
            if value:
                read.say("inert", key, "there are no sample prompts.")
    elif not steps and not epochs:
        read.say(
            "conflicting",
            "sample_prompts",
            "there is no interval (sample_every_n_epochs or sample_every_n_steps): kohya "
            "paints no "
            "samples, and neither does the studio.",
        )
    elif lines := _lines(read, told):
        read.take("sample_prompts", "sample_prompts", "\n".join(lines))
        name = "sample_every_n_epochs" if epochs else "sample_every_n_steps"
        read.take(name, "sample_every_epochs" if epochs else "sample_every", epochs or steps)


def _lines(read: Reader, told: str) -> list[str]:
    """The prompts themselves: the GUI's file has them, sd-scripts' only the path of a file."""
    if read.form != "gui" and re.search(r"\.(txt|toml|json)$|^[/~]|^\w:[\\/]", told):
        read.say(
            "unsupported",
            "sample_prompts",
            f"they are in another file ({last(told):.60}); write them into the sample prompts.",
        )
        return []
    found = []
    for line in told.splitlines():
        words = _FLAGS.sub("", line).strip()
        if not words or words.startswith("#"):
            continue
        if words != line.strip():
            read.say(
                "unsupported",
                "sample_prompts",
                "what follows -- after a prompt is not taken: samples have settings of their own.",
            )
        try:
            prompts.parse(words)
        except ValueError as error:  # what our own grammar cannot read
            read.say(
                "unsupported", "sample_prompts", f"{f'{words:.40}'!r} is left out: {error!s:.100}"
            )
        else:
            found.append(words)
    if len("\n".join(found)) > 10_000:
        raise InvalidSpec(["sample_prompts: has to be at most 10,000 characters long."])
    if not found:
        read.say("unsupported", "sample_prompts", "no prompt is left to paint.")
    return found
