"""What kohya's keys mean to a training run: the optimizer, its rates, and their schedule.

Knows: when sd-scripts drops a rate, a schedule or a warm-up, faithfully; what people usually meant by them (`as_meant`).
Does not know: what is trained (`kohya_rules`, which goes first).

Adafactor: arXiv:1804.04235; its relative step as in transformers.optimization.Adafactor.
"""

from __future__ import annotations

from studio.core.training.config import RELATIVE, Optimizer, RateSchedule
from studio.core.training.kohya.reader import Reader

SCHEDULES: dict[str, RateSchedule] = {
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


def optimizer(read: Reader) -> None:
    """How steps are taken and how far. Adafactor without relative_step finds its own rate and drops the given ones."""
    told, arguments = read.text("optimizer_type"), read.arguments("optimizer_args")
    if read.flag("use_8bit_adam"):
        read.say("taken", "use_8bit_adam", "the old name of optimizer_type = AdamW8bit.")
        told = told or "AdamW8bit"
    kind = OPTIMIZERS.get(told.casefold().rsplit(".", 1)[-1])
    relative = kind == "Adafactor" and _relative(read, arguments)
    if kind is None:
        read.cannot(
            "optimizer",
            "optimizer_type",
            f"the studio has {', '.join(dict.fromkeys(OPTIMIZERS.values()))}, not "
            f"{told:.60}. "
            "Choose AdamW and a rate of about 0.0001.",
        )
    elif not relative:
        read.take(
            "optimizer_type",
            "optimizer",
            kind,
            "not in the file: kohya's own"
            if not told
            else "its memory is not paged"
            if "paged" in told.casefold()
            else "",
        )
    _optimizer_arguments(read, arguments, kind or "AdamW")
    _rates(read, relative)
    _schedule(read, relative)


def _relative(read: Reader, arguments: dict[str, str]) -> bool:
    """Adafactor in its two readings."""
    given = arguments.pop("relative_step", "").casefold()
    warm = arguments.pop("warmup_init", "").casefold() == "true"
    scaled = arguments.pop("scale_parameter", "").casefold()
    relative = given != "false" or warm
    if warm:
        read.say(
            "unsupported",
            "optimizer_args",
            "warmup_init=True is not to be had; as in kohya it makes relative_step true.",
        )
    rates = any(read.has(key) for key in ("learning_rate", "unet_lr", "text_encoder_lr"))
    meant = relative and read.as_meant and rates and not given and not warm
    if meant:
        relative, scaled = False, scaled or "false"
        read.say(
            "conflicting",
            "optimizer_type",
            "as meant: at the given rate (relative_step and scale_parameter off). Kohya "
            "would let "
            "Adafactor find its own, as optimizer_args do not say relative_step=False.",
        )
    if (scaled != "false") != relative:  # Adafactor scales unless it is told not to
        read.values["scale_parameter"] = not relative
    if relative:
        why = (
            "relative_step=True"
            if given or warm
            else "optimizer_args do not say relative_step=False, so kohya sets it"
        )
        read.take(
            "optimizer_type",
            "optimizer",
            RELATIVE,
            f"{why}: Adafactor finds its own rate, max(0.001, RMS of the weights) × "
            "min(0.01, 1 ÷ √step). The other reading is a fixed rate (as meant)",
        )
    if given or (scaled and not meant):
        read.say(
            "taken",
            "optimizer_args",
            f"relative_step={relative}, scale_parameter={scaled != 'false'}.",
        )
    return relative


def _optimizer_arguments(read: Reader, arguments: dict[str, str], kind: str) -> None:
    for name, value in arguments.items():
        numbers = _numbers(value)
        if name == "weight_decay" and len(numbers) == 1:
            read.take("optimizer_args", "weight_decay", numbers[0])
        elif name == "betas" and len(numbers) == 2 and kind != "Adafactor":
            read.values |= {"beta1": numbers[0], "beta2": numbers[1]}
            read.say("taken", "optimizer_args", f"Beta 1: {numbers[0]:g}, Beta 2: {numbers[1]:g}.")
        elif name == "eps" and len(numbers) == 1 and kind != "Adafactor":
            read.take("optimizer_args", "eps", numbers[0])
        else:
            read.say(
                "unsupported",
                "optimizer_args",
                f"{name:.40}={value:.40} is not taken; the studio's {kind} has no such setting.",
            )


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.strip("()[] ").split(",") if part.strip()]
    except ValueError:
        return []


def _rates(read: Reader, relative: bool) -> None:
    if relative:
        for key in ("learning_rate", "unet_lr", "text_encoder_lr"):
            if (
                read.has(key)
                and (rate := _encoders_rate(read) if key == "text_encoder_lr" else read.number(key))
                is not None
            ):
                read.say(
                    "conflicting",
                    key,
                    f"{rate:g} is not applied: Adafactor with relative step drops it and finds its own "
                    "rate. "
                    "As meant, it would be the rate.",
                )
        read.values["learning_rate"] = None
        return
    base = read.number("learning_rate")
    own = {"unet_lr": read.number("unet_lr"), "text_encoder_lr": _encoders_rate(read)}
    parts = {"unet_lr": "train_unet", "text_encoder_lr": "train_text_encoder"}
    for key, rate in own.items():
        if rate == 0 and all(read.values.get(part, True) for part in parts.values()):
            read.values[parts[key]] = False
            read.say(
                "conflicting",
                key,
                "at 0 nothing is learned there; the studio leaves that part alone instead.",
            )
    trained = [key for key, part in parts.items() if read.values.get(part, True)]
    rates = {
        key: (2e-6 if base is None else base) if rate is None else rate for key, rate in own.items()
    }
    main = trained[0] if trained else "unet_lr"
    if rates[main] == 0:
        read.cannot(
            "learning_rate", main if own[main] == 0 else "learning_rate", "at 0 nothing is learned."
        )
        return
    read.take(
        "learning_rate" if own[main] is None else main,
        "learning_rate",
        rates[main],
        "not in the file: kohya's own" if own[main] is None and base is None else "",
    )
    if len(trained) > 1 and len(set(rates.values())) > 1:
        read.take(
            "learning_rate" if own[trained[1]] is None else trained[1],
            "text_encoder_rate",
            rates[trained[1]],
        )
    elif len(trained) > 1 and own[trained[1]] is not None:
        read.say("taken", trained[1], "the same as the U-Net's.")
    for key in own.keys() - set(trained):
        if own[key]:
            read.say("inert", key, "that part is not trained.")
    if base is not None and all(own[key] is not None for key in trained):
        read.say("inert", "learning_rate", "each part that is trained has a rate of its own.")


def _encoders_rate(read: Reader) -> float | None:
    given = read.left.get("text_encoder_lr")
    if isinstance(given, list) and given:
        read.left["text_encoder_lr"] = given[0]
        if any(one != given[0] for one in given):
            read.say(
                "unsupported",
                "text_encoder_lr",
                "the text encoders have one rate; the first one's is taken.",
            )
    return read.number("text_encoder_lr")


def _schedule(read: Reader, relative: bool) -> None:
    told, warmup = read.text("lr_scheduler"), _warmup(read)
    cycles, power = read.whole("lr_scheduler_num_cycles"), read.number("lr_scheduler_power")
    name = told.casefold() or "constant"
    if relative:
        if told:
            read.say(
                "conflicting",
                "lr_scheduler",
                f"{told:.40} is not applied: kohya puts Adafactor's own schedule in its place.",
            )
        if warmup:
            read.say(
                "conflicting",
                "lr_warmup_steps",
                "is not applied: Adafactor with relative step has no warm-up.",
            )
        name, warmup = "constant", 0.0
    elif name not in SCHEDULES:
        read.cannot(
            "schedule", "lr_scheduler", f"the studio has {', '.join(SCHEDULES)}, not {told:.40}."
        )
        if warmup:
            read.say(
                "unknown", "lr_warmup_steps", f"{warmup:g} goes with a schedule that there is not."
            )
        name, warmup = "constant", 0.0
    elif name == "constant" and warmup and read.as_meant:
        name = "constant_with_warmup"
        read.take(
            "lr_scheduler",
            "schedule",
            SCHEDULES[name],
            "as meant, as there is a warm-up; kohya's constant has none",
        )
    elif name == "constant" and warmup:
        read.say(
            "conflicting",
            "lr_warmup_steps",
            "the schedule constant has no warm-up, so it is not applied (as meant, it would be).",
        )
        warmup = 0.0
    elif name == "constant_with_warmup" and not warmup:
        read.say(
            "conflicting", "lr_scheduler", "without lr_warmup_steps it is the schedule constant."
        )
        name = "constant"
    elif told:
        read.take("lr_scheduler", "schedule", SCHEDULES[name])
    read.values["schedule"] = SCHEDULES[name]
    if warmup:
        read.take(
            "lr_warmup_steps", "warmup", warmup, "a share of all steps" if warmup < 1 else "steps"
        )
    for key, value, field, whose in (
        ("lr_scheduler_num_cycles", cycles, "cycles", "cosine_with_restarts"),
        ("lr_scheduler_power", power, "power", "polynomial"),
    ):
        if value is not None and name == whose:
            read.take(key, field, value)
        elif value is not None:
            read.say("inert", key, f"counts only with {whose}.")
    if listed := read.any("lr_scheduler_args"):
        read.say("unsupported", "lr_scheduler_args", f"{listed!s:.60} is not taken.")


def _warmup(read: Reader) -> float:
    """Steps, or a share below 1; the GUI has percent."""
    found = read.number("lr_warmup_steps") or 0.0
    total = read.values.get("steps")
    if read.name("lr_warmup_steps") == "lr_warmup":
        found = round(found * total / 100) if total else found / 100
    if found < 0:
        read.fault("lr_warmup_steps", "has to be 0 or more", found)
    if found and 0 < found < 1 and total and int(found * total) < 1:
        read.say("inert", "lr_warmup_steps", "is less than one step.")
        return 0.0
    return float(found)
