"""What kohya's keys mean to a training run: the optimizer, its rates, and their schedule.

Knows: when sd-scripts drops a rate, a schedule or a warm-up; what people usually mean by them
(`as_meant`).
Does not know: what is trained (network.py, which is read first).

Adafactor: arXiv:1804.04235; its relative step as in transformers.optimization.Adafactor.
"""

from __future__ import annotations

from studio.core.training.config import ADAFACTOR_RELATIVE_STEP, LRSchedule, Optimizer
from studio.core.training.kohya.reader import KOHYA_DEFAULT, KohyaReader

LR_SCHEDULES: dict[str, LRSchedule] = {
    "constant": "constant",
    "constant_with_warmup": "constant with warm-up",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine with restarts",
    "polynomial": "polynomial",
}
OPTIMIZERS: dict[str, Optimizer] = {
    "": "AdamW",
    "adamw": "AdamW",
    "adamw8bit": "AdamW 8-bit",
    "pagedadamw8bit": "AdamW 8-bit",
    "adafactor": "Adafactor",
}
_RATE_KEYS = ("learning_rate", "unet_lr", "text_encoder_lr")
_PART_FIELDS = {"unet_lr": "train_unet", "text_encoder_lr": "train_text_encoder"}


def read_optimizer(reader: KohyaReader) -> None:
    """Read the optimizer, its rates and their schedule.

    In kohya, Adafactor finds its own rate and drops the given ones unless its arguments say
    relative_step=False.
    """
    name = reader.read_text("optimizer_type")
    arguments = reader.read_arguments("optimizer_args")
    if reader.read_flag("use_8bit_adam"):
        note = "the former name of optimizer_type = AdamW8bit."
        reader.add_notice("taken", "use_8bit_adam", note)
        name = name or "AdamW8bit"
    optimizer = OPTIMIZERS.get(name.casefold().rsplit(".", 1)[-1])
    relative_step = optimizer == "Adafactor" and _read_relative_step(reader, arguments)
    if optimizer is None:
        reader.mark_unresolved(
            "optimizer",
            "optimizer_type",
            f"the studio has {', '.join(dict.fromkeys(OPTIMIZERS.values()))}, not {name:.60}. "
            "Choose AdamW and a learning rate of about 0.0001.",
        )
    elif not relative_step:
        detail = ""
        if not name:
            detail = KOHYA_DEFAULT
        elif "paged" in name.casefold():
            detail = "without paging of its memory"
        reader.set_field("optimizer_type", "optimizer", optimizer, detail)
    _read_optimizer_arguments(reader, arguments, optimizer or "AdamW")
    _read_learning_rates(reader, relative_step)
    _read_lr_schedule(reader, relative_step)


def _read_relative_step(reader: KohyaReader, arguments: dict[str, str]) -> bool:
    """Return whether Adafactor finds its own rate, in kohya's reading or the one that is meant."""
    relative_argument = arguments.pop("relative_step", "").casefold()
    scale_argument = arguments.pop("scale_parameter", "").casefold()
    has_warmup_init = arguments.pop("warmup_init", "").casefold() == "true"
    relative_step = relative_argument != "false" or has_warmup_init
    if has_warmup_init:
        reader.add_notice(
            "unsupported",
            "optimizer_args",
            "warmup_init=True is not available; as in kohya, it turns relative_step on.",
        )
    has_rate = any(reader.has(key) for key in _RATE_KEYS)
    is_explicit = bool(relative_argument) or has_warmup_init
    is_overruled = reader.as_meant and has_rate and not is_explicit
    if is_overruled:
        relative_step = False
        scale_argument = scale_argument or "false"
        reader.add_notice(
            "conflicting",
            "optimizer_type",
            "as intended: the given learning rate, with relative_step and scale_parameter off. "
            "Kohya would let Adafactor find its own, because optimizer_args lack "
            "relative_step=False.",
        )
    # Adafactor scales unless it is told not to.
    scale_parameter = scale_argument != "false"
    if scale_parameter != relative_step:
        reader.values["scale_parameter"] = scale_parameter
    if relative_step:
        reason = "optimizer_args lack relative_step=False, so kohya turns it on"
        if is_explicit:
            reason = "relative_step=True"
        reader.set_field(
            "optimizer_type",
            "optimizer",
            ADAFACTOR_RELATIVE_STEP,
            f"{reason}: Adafactor finds its own rate, max(0.001, RMS of the weights) × "
            "min(0.01, 1 ÷ √step) (As intended: a fixed rate)",
        )
    if relative_argument or (scale_argument and not is_overruled):
        reader.add_notice(
            "taken",
            "optimizer_args",
            f"relative_step={relative_step}, scale_parameter={scale_parameter}.",
        )
    return relative_step


def _read_optimizer_arguments(
    reader: KohyaReader, arguments: dict[str, str], optimizer_name: str
) -> None:
    for name, value in arguments.items():
        numbers = _parse_numbers(value)
        if name == "weight_decay" and len(numbers) == 1:
            reader.set_field("optimizer_args", "weight_decay", numbers[0])
        elif name == "betas" and len(numbers) == 2 and optimizer_name != "Adafactor":
            reader.values |= {"beta1": numbers[0], "beta2": numbers[1]}
            reader.add_notice(
                "taken", "optimizer_args", f"Beta 1: {numbers[0]:g}, Beta 2: {numbers[1]:g}."
            )
        elif name == "eps" and len(numbers) == 1 and optimizer_name != "Adafactor":
            reader.set_field("optimizer_args", "eps", numbers[0])
        else:
            reader.add_notice(
                "unsupported",
                "optimizer_args",
                f"{name:.40}={value:.40} is ignored; the studio's {optimizer_name} has no such "
                "setting.",
            )


def _parse_numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.strip("()[] ").split(",") if part.strip()]
    except ValueError:
        return []


def _read_learning_rates(reader: KohyaReader, relative_step: bool) -> None:
    if relative_step:
        _report_dropped_rates(reader)
        reader.values["learning_rate"] = None
        return
    base_lr = reader.read_number("learning_rate")
    part_lrs = {
        "unet_lr": reader.read_number("unet_lr"),
        "text_encoder_lr": _read_text_encoder_lr(reader),
    }
    for key, rate in part_lrs.items():
        if rate == 0 and len(_list_trained_parts(reader)) == len(_PART_FIELDS):
            reader.values[_PART_FIELDS[key]] = False
            reader.add_notice(
                "conflicting",
                key,
                "at 0 this part learns nothing; the studio does not train it.",
            )
    trained_keys = _list_trained_parts(reader)
    default_lr = 2e-6 if base_lr is None else base_lr
    effective_lrs = {key: default_lr if rate is None else rate for key, rate in part_lrs.items()}
    # The key in the file that each rate comes from.
    sources = {key: "learning_rate" if rate is None else key for key, rate in part_lrs.items()}
    main_key = trained_keys[0] if trained_keys else "unet_lr"
    main_lr = effective_lrs[main_key]
    if main_lr == 0:
        reader.mark_unresolved("learning_rate", sources[main_key], "at 0 nothing is learned.")
        return
    is_default = part_lrs[main_key] is None and base_lr is None
    detail = KOHYA_DEFAULT if is_default else ""
    reader.set_field(sources[main_key], "learning_rate", main_lr, detail)
    if len(trained_keys) > 1:
        encoder_key = trained_keys[1]
        if effective_lrs[encoder_key] != main_lr:
            reader.set_field(sources[encoder_key], "text_encoder_lr", effective_lrs[encoder_key])
        elif part_lrs[encoder_key] is not None:
            reader.add_notice("taken", encoder_key, "the same as for the U-Net.")
    for key, rate in part_lrs.items():
        if rate and key not in trained_keys:
            reader.add_notice("inert", key, "this part is not trained.")
    if base_lr is not None and all(part_lrs[key] is not None for key in trained_keys):
        reader.add_notice("inert", "learning_rate", "each trained part has its own learning rate.")


def _report_dropped_rates(reader: KohyaReader) -> None:
    for key in _RATE_KEYS:
        if not reader.has(key):
            continue
        if key == "text_encoder_lr":
            rate = _read_text_encoder_lr(reader)
        else:
            rate = reader.read_number(key)
        if rate is not None:
            reader.add_notice(
                "conflicting",
                key,
                f"{rate:g} is ignored: Adafactor (relative step) finds its own learning rate "
                f"(As intended: {rate:g}).",
            )


def _list_trained_parts(reader: KohyaReader) -> list[str]:
    """Return the keys of the rates whose parts are trained, the U-Net's first."""
    return [key for key, field in _PART_FIELDS.items() if reader.values.get(field, True)]


def _read_text_encoder_lr(reader: KohyaReader) -> float | None:
    rates = reader.remaining.get("text_encoder_lr")
    if isinstance(rates, list) and rates:
        reader.remaining["text_encoder_lr"] = rates[0]
        if any(rate != rates[0] for rate in rates):
            reader.add_notice(
                "unsupported",
                "text_encoder_lr",
                "both text encoders share one learning rate; the first value is used.",
            )
    return reader.read_number("text_encoder_lr")


def _read_lr_schedule(reader: KohyaReader, relative_step: bool) -> None:
    schedule_text = reader.read_text("lr_scheduler")
    warmup = _read_warmup(reader)
    cycles = reader.read_integer("lr_scheduler_num_cycles")
    power = reader.read_number("lr_scheduler_power")
    name, warmup = _resolve_lr_schedule(reader, schedule_text, warmup, relative_step)
    reader.values["lr_scheduler"] = LR_SCHEDULES[name]
    if warmup:
        unit = "a share of all steps" if warmup < 1 else "steps"
        reader.set_field("lr_warmup_steps", "lr_warmup", warmup, unit)
    for key, value, schedule in (
        ("lr_scheduler_num_cycles", cycles, "cosine_with_restarts"),
        ("lr_scheduler_power", power, "polynomial"),
    ):
        if value is not None and name == schedule:
            reader.set_field(key, key, value)
        elif value is not None:
            reader.add_notice("inert", key, f"used only with {schedule}.")
    if arguments := reader.read_value("lr_scheduler_args"):
        reader.add_notice("unsupported", "lr_scheduler_args", f"{arguments!s:.60} is ignored.")


def _resolve_lr_schedule(
    reader: KohyaReader, schedule_text: str, warmup: float, relative_step: bool
) -> tuple[str, float]:
    """Return the key of LR_SCHEDULES and the warm-up that act."""
    name = schedule_text.casefold() or "constant"
    if relative_step:
        if schedule_text:
            reader.add_notice(
                "conflicting",
                "lr_scheduler",
                f"{schedule_text:.40} is ignored: kohya replaces it with Adafactor's own schedule.",
            )
        if warmup:
            reader.add_notice(
                "conflicting",
                "lr_warmup_steps",
                "ignored: Adafactor (relative step) has no warm-up.",
            )
        return "constant", 0.0
    if name not in LR_SCHEDULES:
        reader.mark_unresolved(
            "lr_scheduler",
            "lr_scheduler",
            f"the studio has {', '.join(LR_SCHEDULES)}, not {schedule_text:.40}.",
        )
        if warmup:
            reader.add_notice(
                "unknown", "lr_warmup_steps", f"{warmup:g} belongs to an unknown schedule."
            )
        return "constant", 0.0
    if name == "constant" and warmup and reader.as_meant:
        name = "constant_with_warmup"
        reader.set_field(
            "lr_scheduler",
            "lr_scheduler",
            LR_SCHEDULES[name],
            "as intended, because there is a warm-up; kohya's constant has none",
        )
    elif name == "constant" and warmup:
        reader.add_notice(
            "conflicting",
            "lr_warmup_steps",
            "ignored, because the constant schedule has no warm-up (As intended: used).",
        )
        warmup = 0.0
    elif name == "constant_with_warmup" and not warmup:
        reader.add_notice(
            "conflicting", "lr_scheduler", "without lr_warmup_steps, this is the constant schedule."
        )
        name = "constant"
    elif schedule_text:
        reader.set_field("lr_scheduler", "lr_scheduler", LR_SCHEDULES[name])
    return name, warmup


def _read_warmup(reader: KohyaReader) -> float:
    """Return steps, or a share below 1; the GUI has percent."""
    warmup = reader.read_number("lr_warmup_steps") or 0.0
    steps = reader.values.get("steps")
    if reader.get_original_name("lr_warmup_steps") == "lr_warmup":
        warmup = round(warmup * steps / 100) if steps else warmup / 100
    if warmup < 0:
        reader.add_fault("lr_warmup_steps", "must be 0 or more", warmup)
    if 0 < warmup < 1 and steps and int(warmup * steps) < 1:
        reader.add_notice("inert", "lr_warmup_steps", "less than one step.")
        return 0.0
    return float(warmup)
