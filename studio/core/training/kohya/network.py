"""What kohya's keys mean to a training run: family, length, and what is trained.

Knows: sd-scripts' defaults and how its keys override each other, faithfully; what people usually meant by them (`as_meant`).
Does not know: optimizers and rates (`kohya_rates`), pictures and captions (`kohya_data`), the files (`kohya_file`).

Read as facts from the documentation, the code and the logs of sd-scripts; none of its code is here.
"""

from __future__ import annotations

import re

from studio.core.catalog import Family
from studio.core.training.kohya.reader import Reader

_HINTS: tuple[tuple[Family, str], ...] = (
    ("sdxl", r"xl(?![a-z])"),
    ("sd2", r"sd[-_]?v?2|diffusion-v?2|v2-1"),
    ("sd1", r"sd[-_]?v?1|diffusion-v?1|v1[-_.]?[45]"),
)
LOCON = "attention + feed-forward + convolutions"


def family(read: Reader, name: str) -> Family | None:
    """Which family the file is for, if it says: by a key, else by the model's name, else by the file's own."""
    path = read.left.get("pretrained_model_name_or_path")
    if read.left.get("sdxl") is True or read.left.get("v2") is True:
        return "sdxl" if read.left.get("sdxl") is True else "sd2"
    if isinstance(path, str) and (found := guess(path)):
        read.say(
            "taken",
            "pretrained_model_name_or_path",
            f"by the model's name it is of the family {found}.",
        )
        return found
    if read.form == "gui" and read.left.get("sdxl") is not None:
        return "sd1"
    if found := guess(name):
        read.say("unknown", "modules", f"by the file's name the model is of the family {found}.")
    return found


def guess(name: str) -> Family | None:
    """The family that a model's name tells of."""
    return next(
        (found for found, pattern in _HINTS if re.search(pattern, name[:1000], re.IGNORECASE)), None
    )


def length(read: Reader) -> None:
    """Steps or epochs: in sd-scripts max_train_epochs wins, else max_train_steps, else 1600; `epoch` is a key of the GUI alone."""
    total, epochs, wished = (
        read.whole("max_train_steps"),
        read.whole("max_train_epochs"),
        read.whole("epoch"),
    )
    if epochs:
        by_gui = read.name("max_train_epochs") == "epoch"
        read.take(
            "max_train_epochs",
            "epochs",
            epochs,
            "the GUI counts the steps from it" if by_gui else "",
        )
        if by_gui and read.left.get("reg_data_dir"):
            read.say(
                "conflicting",
                "reg_data_dir",
                "with class pictures the GUI doubles the steps; the studio does not.",
            )
        if total is not None:
            read.say(
                "conflicting",
                "max_train_steps",
                f"max_train_epochs = {epochs} overrides the {total} steps.",
            )
        if wished is not None:
            read.say(
                "conflicting",
                "epoch",
                f"belongs to the GUI alone; max_train_epochs = {epochs} decides, not {wished} epochs.",
            )
    elif wished and read.as_meant:
        read.take("epoch", "epochs", wished, "as meant; sd-scripts does not know this key")
        if total is not None:
            read.say(
                "conflicting",
                "max_train_steps",
                f"as meant: the {wished} epochs decide, not the {total} steps that kohya "
                "would take.",
            )
    else:
        steps = total or 1600
        read.take(
            "max_train_steps", "steps", steps, "" if total else "not in the file: kohya's own"
        )
        if wished is not None:
            read.say(
                "conflicting",
                "epoch",
                f"belongs to the GUI alone: sd-scripts does not know it, and max_train_steps = "
                f"{steps} decides. "
                f"The other reading is {wished} epochs (as meant).",
            )


def network(read: Reader) -> None:
    """What is trained, and how much it can hold."""
    module = read.text("network_module")
    arguments = read.arguments("network_args")
    locon = _kind(read, module, arguments)
    rank, alpha = read.whole("network_dim"), read.number("network_alpha")
    read.take(
        "network_dim",
        "rank",
        4 if rank is None else rank,
        "not in the file: kohya's own" if rank is None else "",
    )
    if alpha == 0:
        read.say("taken", "network_alpha", "0 stands for the rank.")
    else:
        read.take(
            "network_alpha",
            "alpha",
            1.0 if alpha is None else alpha,
            "not in the file: kohya's own" if alpha is None else "",
        )
    if dropout := read.number("network_dropout"):
        read.take(
            "network_dropout",
            "dropout",
            dropout,
            "kohya leaves out after the layer down, the studio before it",
        )
    _network_arguments(read, arguments, locon)
    _trained(read)


def _kind(read: Reader, module: str, arguments: dict[str, str]) -> bool:
    """Whether it is LyCORIS' LoCon; says what kinds there are not."""
    name, algorithm = module.casefold().replace("/", "."), arguments.pop("algo", "lora").casefold()
    if not module:
        read.say(
            "unknown",
            "network_module",
            "is not in the file (on the command line, perhaps); networks.lora is taken.",
        )
    elif name == "networks.lora":
        read.say(
            "taken",
            "network_module",
            "kohya's LoRA: every linear layer and 1 × 1 convolution of the transformers.",
        )
    elif name == "lycoris.kohya" and algorithm in ("lora", "locon"):
        read.say(
            "unsupported",
            "network_module",
            "taken as kohya's LoCon; LyCORIS' own also trains the first and last layers.",
        )
        return True
    else:
        read.cannot(
            "targets",
            "network_module",
            f"the studio trains LoRA and LoCon (networks.lora), not {f'{module} {algorithm}':.80}.",
        )
    return False


def _network_arguments(read: Reader, arguments: dict[str, str], locon: bool) -> None:
    preset = arguments.pop("preset", "full") if locon else ""
    sizes: dict[str, float] = {}
    for name in ("conv_dim", "conv_alpha"):
        if found := read.as_number(f"network_args.{name}", arguments.pop(name, None)):
            sizes[name] = found
    if preset in ("attn-mlp", "attn-only"):
        targets = "attention" if preset == "attn-only" else "attention + feed-forward"
        read.take("network_args.preset", "targets", targets, f"preset {preset}")
        if sizes:
            read.say(
                "inert", "network_args", f"with preset={preset} there are no 3 × 3 convolutions."
            )
    elif "conv_dim" in sizes or locon:
        read.take("network_args.conv_dim", "targets", LOCON, "LoCon")
        if sizes.get("conv_dim"):
            read.take("network_args.conv_dim", "conv_rank", sizes["conv_dim"])
        read.take(
            "network_args.conv_alpha",
            "conv_alpha",
            sizes.get("conv_alpha", 1.0),
            "" if "conv_alpha" in sizes else "kohya's own",
        )
    elif sizes:
        read.say("inert", "network_args.conv_alpha", "counts only with conv_dim.")
    for name, value in arguments.items():
        if value in ("0", "0.0", "False", "None", ""):
            read.say("inert", f"network_args.{name}", f"{name} is off.")
        else:
            read.say(
                "unsupported",
                f"network_args.{name}",
                f"the studio has no {name:.40} (not {value:.40}).",
            )


def _trained(read: Reader) -> None:
    unet_only, encoder_only = (
        read.flag("network_train_unet_only"),
        read.flag("network_train_text_encoder_only"),
    )
    cached = read.flag("cache_text_encoder_outputs")
    unet, encoder = not encoder_only, not unet_only
    if not unet and not encoder:
        read.cannot(
            "train_unet",
            "network_train_unet_only",
            "with network_train_text_encoder_only nothing is trained at all.",
        )
        return
    if cached and encoder:
        read.say(
            "conflicting",
            "cache_text_encoder_outputs",
            "kohya does not start with this while the text encoders are trained; "
            "the studio leaves them alone."
            if unet
            else "there is nothing to train then; the studio trains the text encoders.",
        )
        encoder = not unet
    elif cached:
        read.say(
            "inert",
            "cache_text_encoder_outputs",
            "the studio keeps texts encoded anyway, where the encoders are not trained.",
        )
    for key, told in (
        ("network_train_unet_only", unet_only),
        ("network_train_text_encoder_only", encoder_only),
    ):
        if told:
            read.say(
                "taken", key, f"only {'the U-Net is' if unet else 'the text encoders are'} trained."
            )
    read.values |= {"train_unet": unet, "train_text_encoder": encoder}


def settle(read: Reader) -> None:
    """After rates, which can leave a part alone: only the U-Net has convolutions."""
    if not read.values.get("train_unet", True) and read.values.get("targets") == LOCON:
        read.values["targets"] = "attention + feed-forward"
        for field in ("conv_rank", "conv_alpha"):
            read.values.pop(field, None)
        read.say(
            "inert",
            "network_args.conv_dim",
            "the U-Net is not trained, and only it has convolutions.",
        )
