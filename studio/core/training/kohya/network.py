"""What kohya's keys mean to a training run: family, length, and what is trained.

Knows: sd-scripts' defaults and how its keys override each other; what people usually mean by them
(`as_meant`).
Does not know: optimizers and rates (optimizer.py), images and captions (dataset.py), the files
(parser.py).

Read as facts from the documentation, the code and the logs of sd-scripts; none of its code is here.
"""

from __future__ import annotations

import re

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.training.kohya import lycoris
from studio.core.training.kohya.reader import KOHYA_DEFAULT, KohyaReader
from studio.core.training.lora_targets import LOCON_TARGETS


def detect_family(reader: KohyaReader, file_name: str) -> FamilyName | None:
    """Return the family that the file is for, if it says so.

    By a key, else by the model's name, else by the file's own.
    """
    if reader.remaining.get("sdxl") is True:
        return "sdxl"
    if reader.remaining.get("v2") is True:
        return "sd2"
    path = reader.remaining.get("pretrained_model_name_or_path")
    family = guess_family(path) if isinstance(path, str) else None
    if family:
        reader.add_notice(
            "taken",
            "pretrained_model_name_or_path",
            f"judging by its name, the model belongs to the family {family}.",
        )
        return family
    if reader.file_format == "gui" and reader.remaining.get("sdxl") is not None:
        return "sd1"
    family = guess_family(file_name)
    if family:
        note = f"judging by the file's name, the model belongs to the family {family}."
        reader.add_notice("unknown", "modules", note)
    return family


def guess_family(name: str) -> FamilyName | None:
    """Return the family that a model's name hints at, if any."""
    # The newest first: "sd_xl_base_1.0" is none of SD 1.x.
    for family in reversed(FAMILIES.values()):
        if family.name_pattern and re.search(family.name_pattern, name[:1000], re.IGNORECASE):
            return family.name
    return None


def read_length(reader: KohyaReader) -> None:
    """Read steps or epochs.

    In sd-scripts max_train_epochs wins, else max_train_steps, else 1600; `epoch` is a key of the
    GUI alone.
    """
    max_steps = reader.read_integer("max_train_steps")
    epochs = reader.read_integer("max_train_epochs")
    gui_epochs = reader.read_integer("epoch")
    if epochs:
        _set_epochs(reader, epochs, max_steps, gui_epochs)
    elif gui_epochs and reader.as_meant:
        detail = "as intended; sd-scripts does not know this key"
        reader.set_field("epoch", "epochs", gui_epochs, detail)
        if max_steps is not None:
            reader.add_notice(
                "conflicting",
                "max_train_steps",
                f"as intended: the {gui_epochs} epochs decide, not the {max_steps} steps that "
                "kohya would take.",
            )
    else:
        steps = max_steps or 1600
        reader.set_field("max_train_steps", "steps", steps, "" if max_steps else KOHYA_DEFAULT)
        if gui_epochs is not None:
            reader.add_notice(
                "conflicting",
                "epoch",
                "used only by the GUI; sd-scripts does not know it, and max_train_steps = "
                f"{steps} decides (As intended: {gui_epochs} epochs).",
            )


def _set_epochs(
    reader: KohyaReader, epochs: int, max_steps: int | None, gui_epochs: int | None
) -> None:
    is_from_gui = reader.get_original_name("max_train_epochs") == "epoch"
    detail = "the GUI counts the steps from it" if is_from_gui else ""
    reader.set_field("max_train_epochs", "epochs", epochs, detail)
    if is_from_gui and reader.remaining.get("reg_data_dir"):
        reader.add_notice(
            "conflicting",
            "reg_data_dir",
            "the GUI doubles the steps with class images; the studio does not.",
        )
    if max_steps is not None:
        reader.add_notice(
            "conflicting",
            "max_train_steps",
            f"max_train_epochs = {epochs} overrides the {max_steps} steps.",
        )
    if gui_epochs is not None:
        reader.add_notice(
            "conflicting",
            "epoch",
            f"used only by the GUI; max_train_epochs = {epochs} decides, not {gui_epochs} epochs.",
        )


def read_network(reader: KohyaReader) -> None:
    """Read the kind and size of the LoRA, and which parts of the model are trained."""
    module = reader.read_text("network_module")
    arguments = reader.read_arguments("network_args")
    rank = reader.read_integer("network_dim")
    if rank is None:
        reader.set_field("network_dim", "rank", 4, KOHYA_DEFAULT)
    else:
        reader.set_field("network_dim", "rank", rank)
    alpha = reader.read_number("network_alpha")
    if alpha is None:
        reader.set_field("network_alpha", "alpha", 1.0, KOHYA_DEFAULT)
    elif alpha == 0:
        reader.add_notice("taken", "network_alpha", "0 means the rank.")
    else:
        reader.set_field("network_alpha", "alpha", alpha)
    is_lycoris = module.casefold().replace("/", ".") == lycoris.MODULE_NAME
    has_text_encoders = True
    if is_lycoris:
        has_text_encoders = lycoris.read_lycoris(reader, arguments)
    else:
        _read_module(reader, module)
        _read_network_arguments(reader, arguments)
    _read_dropouts(reader, arguments, is_lycoris)
    _report_remaining_arguments(reader, arguments)
    if max_norm := reader.read_number("scale_weight_norms"):
        reader.set_field("scale_weight_norms", "scale_weight_norms", max_norm)
    _read_trained_parts(reader, has_text_encoders)


def _read_module(reader: KohyaReader, module: str) -> None:
    """Check the kind of the LoRA; unknown ones are marked unresolved."""
    if not module:
        reader.add_notice(
            "unknown",
            "network_module",
            "not in the file (perhaps on the command line); networks.lora is used.",
        )
    elif module.casefold().replace("/", ".") == "networks.lora":
        reader.add_notice(
            "taken",
            "network_module",
            "kohya's LoRA: all linear layers and 1 × 1 convolutions of the transformers.",
        )
    else:
        reader.mark_unresolved(
            "targets",
            "network_module",
            "the studio trains LoRA (networks.lora), LoHa and LoKr (lycoris.kohya), not "
            f"{module:.80}.",
        )


def _read_network_arguments(reader: KohyaReader, arguments: dict[str, str]) -> None:
    """Read the arguments of networks.lora."""
    sizes: dict[str, float] = {}
    for name in ("conv_dim", "conv_alpha"):
        if size := reader.parse_number(f"network_args.{name}", arguments.pop(name, None)):
            sizes[name] = size
    if "conv_dim" in sizes:
        reader.set_field("network_args.conv_dim", "targets", LOCON_TARGETS, "LoCon")
        reader.set_field("network_args.conv_dim", "conv_rank", sizes["conv_dim"])
        reader.set_field(
            "network_args.conv_alpha",
            "conv_alpha",
            sizes.get("conv_alpha", 1.0),
            "" if "conv_alpha" in sizes else "kohya's default",
        )
    elif sizes:
        reader.add_notice("inert", "network_args.conv_alpha", "used only with conv_dim.")
    for name in [name for name in arguments if name in lycoris.LYCORIS_ARGUMENTS]:
        del arguments[name]
        note = f"{name} is used only with network_module = {lycoris.MODULE_NAME}."
        reader.add_notice("inert", f"network_args.{name}", note)


def _read_dropouts(reader: KohyaReader, arguments: dict[str, str], is_lycoris: bool) -> None:
    """Read what is left out at random. kohya hands LyCORIS its own dropout unless it has one."""
    dropout = reader.read_number("network_dropout")
    key = "network_dropout"
    if is_lycoris and "dropout" in arguments:
        key = "network_args.dropout"
        dropout = reader.parse_number(key, arguments.pop("dropout"))
    if dropout and reader.values.get("network_type", "LoRA") != "LoRA":
        note = "LyCORIS applies no dropout to the inputs of LoHa and LoKr."
        reader.add_notice("inert", key, note)
    elif dropout:
        detail = "kohya drops after the down layer, the studio before it"
        reader.set_field(key, "dropout", dropout, detail)
    for name in ("rank_dropout", "module_dropout"):
        key = f"network_args.{name}"
        if probability := reader.parse_number(key, arguments.pop(name, None)):
            detail = "drawn per image, where kohya draws per batch"
            reader.set_field(key, name, probability, detail)


def _report_remaining_arguments(reader: KohyaReader, arguments: dict[str, str]) -> None:
    for name, value in arguments.items():
        if value in ("0", "0.0", "False", "None", ""):
            reader.add_notice("inert", f"network_args.{name}", f"{name} is off.")
        else:
            reader.add_notice(
                "unsupported",
                f"network_args.{name}",
                f"the studio has no {name:.40} (the file has {value:.40}).",
            )


def _read_trained_parts(reader: KohyaReader, has_text_encoders: bool = True) -> None:
    """Read which parts are trained.

    Args:
        reader: The file.
        has_text_encoders: Whether LyCORIS' preset has layers in them.
    """
    unet_only = reader.read_flag("network_train_unet_only")
    encoder_only = reader.read_flag("network_train_text_encoder_only")
    caches_outputs = reader.read_flag("cache_text_encoder_outputs")
    trains_unet = not encoder_only
    trains_encoder = not unet_only and has_text_encoders
    if not has_text_encoders:
        note = "the preset does not train the text encoders."
        reader.add_notice("taken", "network_args.preset", note)
    if not trains_unet and not trains_encoder:
        key = "network_train_unet_only" if unet_only else "network_args.preset"
        note = "with network_train_text_encoder_only, nothing would be trained."
        reader.mark_unresolved("train_unet", key, note)
        return
    if caches_outputs and trains_encoder:
        note = "would leave nothing to train; the studio trains the text encoders."
        if trains_unet:
            note = (
                "kohya does not start with this while the text encoders are trained; "
                "the studio does not train them."
            )
            trains_encoder = False
        reader.add_notice("conflicting", "cache_text_encoder_outputs", note)
    elif caches_outputs:
        reader.add_notice(
            "inert",
            "cache_text_encoder_outputs",
            "the studio always caches encoded texts when the text encoders are not trained.",
        )
    if unet_only:
        reader.add_notice("taken", "network_train_unet_only", "only the U-Net is trained.")
    if encoder_only:
        note = "only the text encoders are trained."
        reader.add_notice("taken", "network_train_text_encoder_only", note)
    reader.values |= {"train_unet": trains_unet, "train_text_encoder": trains_encoder}


def drop_unused_convolutions(reader: KohyaReader) -> None:
    """Drop the convolutions where the U-Net is not trained, which the rates may have decided."""
    trains_unet = reader.values.get("train_unet", True)
    if not trains_unet and reader.values.get("train_norm"):
        lycoris.drop_norms(reader)
    if trains_unet or reader.values.get("targets") != LOCON_TARGETS:
        return
    reader.values["targets"] = "attention + feed-forward"
    for field in ("conv_rank", "conv_alpha"):
        reader.values.pop(field, None)
    reader.add_notice(
        "inert",
        "network_args.conv_dim",
        "only the U-Net has convolutions, and it is not trained.",
    )
