"""LyCORIS' arguments, `network_args` of `lycoris.kohya`, read into settings and written from them.

Knows: its algorithms, its presets and which layers they choose, its arguments' defaults.
Does not know: kohya's own module networks.lora (network.py), how a LoRA is trained.

Read as facts from LyCORIS' documentation and code; none of its code is here.

    full                  transformers, ResNets, samplers, first and last layers, time embedding
    full-lin              the same without convolutions wider than 1 × 1
    attn-mlp, attn-only   the transformers; their attention
    unet-only, unet-transformer-only, unet-convblock-only
                          as full, attn-mlp, and the convolutions of full, of the U-Net alone
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.core.training.config import TrainingConfig
from studio.core.training.fields import NetworkType
from studio.core.training.kohya.reader import KohyaReader
from studio.core.training.lora_targets import LOCON_TARGETS, Targets

MODULE_NAME = "lycoris.kohya"
ALGORITHMS: dict[str, NetworkType] = {
    "lora": "LoRA",
    "locon": "LoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
}
MAX_LOKR_FACTOR = 16_384  # no layer is as wide
MAX_RANK = 512
_RESNETS = "unet.*.resnets.*, unet.*samplers.*"
_RESNET_NORMS = "unet.*.resnets.*.norm*"
_THIN_LAYERS = "unet.*.attentions.*, unet.*.time_emb_proj, unet.*.conv_shortcut, text_encoder*"


@dataclass(frozen=True)
class LycorisPreset:
    """Which layers a preset trains, and which of them the studio leaves out."""

    targets: Targets
    target_modules: str = ""
    has_text_encoders: bool = True
    left_out: str = ""

    @property
    def has_kernels(self) -> bool:
        """Whether convolutions wider than 1 × 1 are among them."""
        return self.targets == LOCON_TARGETS or self.target_modules == _RESNETS


_ENDS = "the first and last convolution and the time embedding are left out"
PRESETS = {
    "full": LycorisPreset(LOCON_TARGETS, left_out=_ENDS),
    "full-lin": LycorisPreset("patterns", _THIN_LAYERS, left_out="the time embedding is left out"),
    "attn-mlp": LycorisPreset("attention + feed-forward"),
    "attn-only": LycorisPreset("attention"),
    "unet-only": LycorisPreset(LOCON_TARGETS, has_text_encoders=False, left_out=_ENDS),
    "unet-transformer-only": LycorisPreset("attention + feed-forward", has_text_encoders=False),
    "unet-convblock-only": LycorisPreset(
        "patterns",
        _RESNETS,
        has_text_encoders=False,
        left_out="the first and last convolution are left out",
    ),
}
_PRESET_BY_TARGETS = {preset.targets: name for name, preset in reversed(PRESETS.items())}
_WHOLE_FACTORS_NOTE = "has no effect when both LoKr matrices are whole."
# Arguments that change nothing of what is trained here, and why.
INERT_ARGUMENTS = {
    "bypass_mode": "affects only how it is computed, not what is learned.",
    "block_size": "used only by DyLoRA and OFT.",
    "constraint": "used only by OFT.",
    "rescaled": "used only by OFT.",
    "train_on_input": "used only by (IA)³.",
    "train_t5xxl": "used only by other families.",
    "disable_conv_cp": "is the old way to turn use_tucker off.",
}
# All that networks.lora passes over in silence.
LYCORIS_ARGUMENTS = (
    *("algo", "preset", "factor", "decompose_both", "full_matrix", "unbalanced_factorization"),
    *("dora_wd", "use_dora", "wd_on_output", "rs_lora", "use_rslora", "train_norm", "use_scalar"),
    *("use_tucker", "use_cp", "use_conv_cp", "rank_dropout_scale"),
    *INERT_ARGUMENTS,
)


def read_lycoris(reader: KohyaReader, arguments: dict[str, str]) -> bool:
    """Read LyCORIS' arguments; each is taken out of `arguments`.

    Returns:
        Whether its preset also trains the text encoders.
    """
    algorithm = arguments.pop("algo", "lora").casefold()
    name = arguments.pop("preset", "full")
    network_type, preset = ALGORITHMS.get(algorithm), PRESETS.get(name)
    if network_type is None:
        reader.mark_unresolved(
            "targets",
            "network_args.algo",
            f"the studio trains LoRA, LoHa and LoKr, not {f'{MODULE_NAME} {algorithm}':.80}.",
        )
    else:
        reader.set_field("network_args.algo", "network_type", network_type, f"algo {algorithm}")
    if preset is None:
        reader.mark_unresolved(
            "targets",
            "network_args.preset",
            f"the studio has no preset {name:.60}; choose one of {', '.join(PRESETS)}.",
        )
        preset = PRESETS["full"]
    elif network_type:
        _read_preset(reader, name, preset)
    reader.add_notice("taken", "network_module", "LyCORIS; its algo decides what is trained.")
    has_whole_factors = network_type == "LoKr" and _read_lokr(reader, arguments)
    has_kernels = _read_conv_sizes(reader, arguments, preset, has_whole_factors)
    _read_switches(reader, arguments, preset)
    _read_forms(reader, arguments, has_kernels, network_type)
    return preset.has_text_encoders


def _read_preset(reader: KohyaReader, name: str, preset: LycorisPreset) -> None:
    key = "network_args.preset"
    reader.set_field(key, "targets", preset.targets, f"preset {name}")
    if preset.target_modules:
        reader.set_field(key, "target_modules", preset.target_modules, f"preset {name}")
    if preset.left_out:
        reader.add_notice("unsupported", key, f"preset {name}: {preset.left_out}.")


def _read_conv_sizes(
    reader: KohyaReader,
    arguments: dict[str, str],
    preset: LycorisPreset,
    has_whole_factors: bool = False,
) -> bool:
    """Read conv_dim and conv_alpha, which are network_dim and network_alpha without a word.

    Returns whether convolutions wider than 1 × 1 are trained.
    """
    sizes = {}
    for name in ("conv_dim", "conv_alpha"):
        sizes[name] = reader.parse_number(f"network_args.{name}", arguments.pop(name, None))
    given = [name for name, size in sizes.items() if size is not None]
    if not given:
        return preset.has_kernels
    if not preset.has_kernels:
        note = "this preset includes no 3 × 3 convolutions."
        reader.add_notice("inert", "network_args.conv_dim", note)
        return False
    if sizes["conv_dim"] == 0:
        is_full = reader.values.get("targets") == LOCON_TARGETS
        modules = _THIN_LAYERS if is_full else "unet.*.time_emb_proj, unet.*.conv_shortcut"
        reader.values |= {"targets": "patterns", "target_modules": modules}
        reader.add_notice(
            "taken", "network_args.conv_dim", "0: convolutions wider than 1 × 1 are not trained."
        )
        return False
    if has_whole_factors:
        for name in given:
            reader.add_notice("inert", f"network_args.{name}", f"{name}: {_WHOLE_FACTORS_NOTE}")
        return True
    if sizes["conv_dim"]:
        reader.set_field("network_args.conv_dim", "conv_rank", sizes["conv_dim"])
    alpha, detail = sizes["conv_alpha"], ""
    if not alpha:
        alpha, detail = reader.values.get("alpha"), "LyCORIS uses network_alpha"
    if alpha:
        reader.set_field("network_args.conv_alpha", "conv_alpha", alpha, detail)
    return True


def _read_lokr(reader: KohyaReader, arguments: dict[str, str]) -> bool:
    """Read the arguments of LoKr alone; return whether its factors are whole."""
    factor = reader.parse_number("network_args.factor", arguments.pop("factor", None))
    if factor is not None and factor != int(factor):
        reader.add_fault("network_args.factor", "factor must be a whole number", factor)
        factor = None
    if factor is not None and not 0 <= factor <= MAX_LOKR_FACTOR:
        note = "LoKr factor: automatic, as square as possible."
        reader.add_notice("taken", "network_args.factor", note)
    elif factor is not None:
        reader.set_field("network_args.factor", "lokr_factor", max(1, int(factor)))
    key = "network_args.full_matrix"
    rank = reader.values.get("rank", 0)
    is_whole = _pop_flag(reader, arguments, "full_matrix") or rank > MAX_RANK
    by_rank = _pop_flag(reader, arguments, "decompose_both")
    if not is_whole:
        if by_rank:
            key = "network_args.decompose_both"
            reader.set_field(key, "lokr_factors", "both by rank", "where that is smaller")
        return False
    detail = "full_matrix"
    if rank > MAX_RANK:
        key, detail = "network_dim", f"as LyCORIS does at a rank of {rank:,}"
    else:
        reader.set_field(key, "lokr_factors", "both whole", detail)
    for field, inert_key in (("rank", "network_dim"), ("alpha", "network_alpha")):
        reader.values.pop(field, None)
        reader.withdraw_notices(inert_key)
        reader.add_notice("inert", inert_key, _WHOLE_FACTORS_NOTE)
    if key == "network_dim":
        reader.set_field(key, "lokr_factors", "both whole", detail)
    if by_rank:
        note = "overridden by full_matrix."
        reader.add_notice("conflicting", "network_args.decompose_both", note)
    return True


def _read_switches(reader: KohyaReader, arguments: dict[str, str], preset: LycorisPreset) -> None:
    dora_names = [name for name in ("dora_wd", "use_dora") if _pop_flag(reader, arguments, name)]
    on_outputs = _pop_flag(reader, arguments, "wd_on_output", True)
    if dora_names:
        reader.set_field(f"network_args.{dora_names[0]}", "use_dora", True)
        if not on_outputs:
            note = "the studio's DoRA has one magnitude for each output, not for each input."
            reader.add_notice("unsupported", "network_args.wd_on_output", note)
    names = [name for name in ("rs_lora", "use_rslora") if _pop_flag(reader, arguments, name)]
    if names and reader.values.get("lokr_factors") == "both whole":
        note = "LoKr has no rank when both matrices are whole."
        reader.add_notice("inert", f"network_args.{names[0]}", note)
    elif names:
        reader.set_field(f"network_args.{names[0]}", "use_rslora", True)
    if _pop_flag(reader, arguments, "train_norm"):
        if preset.targets == "attention":
            note = "attention alone has no norm layers."
            reader.add_notice("inert", "network_args.train_norm", note)
        else:
            reader.set_field("network_args.train_norm", "train_norm", True)
            _add_norms(reader)


def _add_norms(reader: KohyaReader) -> None:
    """Add the ResNets' norms to patterns that take only some layers of the ResNets.

    LyCORIS trains the norms of every block that it enters, whichever layers of it are too thick.
    """
    patterns = reader.values.get("target_modules", "")
    if reader.values.get("targets") == "patterns" and _RESNETS not in patterns:
        reader.values["target_modules"] = f"{patterns}, {_RESNET_NORMS}"


def drop_norms(reader: KohyaReader) -> None:
    """Take back the norms, where the file turns out to leave the U-Net alone."""
    note = "the U-Net is not trained, and the norm layers belong to it."
    reader.add_notice("inert", "network_args.train_norm", note)
    del reader.values["train_norm"]
    if patterns := reader.values.get("target_modules"):
        reader.values["target_modules"] = patterns.removesuffix(f", {_RESNET_NORMS}")


def _read_forms(
    reader: KohyaReader,
    arguments: dict[str, str],
    has_kernels: bool,
    network_type: NetworkType | None,
) -> None:
    """Read what changes the form of the tensors, and what does not count."""
    tucker_names = ("use_tucker", "use_cp", "use_conv_cp")
    names = [name for name in tucker_names if _pop_flag(reader, arguments, name)]
    if names and has_kernels:
        reader.mark_unresolved(
            "targets",
            f"network_args.{names[0]}",
            f"the studio cannot train Tucker decompositions; leave out {names[0]}.",
        )
    elif names:
        note = "used only for convolutions wider than 1 × 1."
        reader.add_notice("inert", f"network_args.{names[0]}", note)
    if _pop_flag(reader, arguments, "unbalanced_factorization") and network_type == "LoKr":
        reader.mark_unresolved(
            "targets",
            "network_args.unbalanced_factorization",
            "the studio factors both sides of a layer in the same way; leave it out.",
        )
    if _pop_flag(reader, arguments, "use_scalar"):
        note = "the studio starts from zeros instead of learning a factor that starts at 0."
        reader.add_notice("unsupported", "network_args.use_scalar", note)
    if _pop_flag(reader, arguments, "rank_dropout_scale"):
        kind, note = "taken", "what is kept is scaled up, as always for LoRA."
        if network_type != "LoRA":
            kind, note = "unsupported", "what is kept of LoHa and LoKr is not scaled up."
        reader.add_notice(kind, "network_args.rank_dropout_scale", note)  # type: ignore[arg-type]
    for name in [name for name in arguments if name in INERT_ARGUMENTS]:
        del arguments[name]
        reader.add_notice("inert", f"network_args.{name}", INERT_ARGUMENTS[name])


def _pop_flag(
    reader: KohyaReader, arguments: dict[str, str], name: str, default: bool = False
) -> bool:
    """Take a switch out of the arguments.

    To LyCORIS every word but False, in any case, is on. A word that says off is meant so.
    """
    word = arguments.pop(name, str(default)).casefold()
    if word not in ("0", "no", "off", "none", ""):
        return word != "false"
    is_on = not reader.as_meant
    note = "LyCORIS turns off only for False, so this is on (As intended: off)"
    if not is_on:
        note = "off, as intended; LyCORIS turns off only for False, so this would be on"
    reader.add_notice("conflicting", f"network_args.{name}", f"{name}={word:.20}: {note}.")
    return is_on


def write_network_args(config: TrainingConfig) -> dict[str, str]:
    """Return the arguments with which kohya and LyCORIS would train such a LoRA, for metadata."""
    arguments: dict[str, str] = {}
    if config.is_lycoris:
        arguments["algo"] = config.network_type.casefold()
        if config.targets in _PRESET_BY_TARGETS and config.targets != "patterns":
            arguments["preset"] = _PRESET_BY_TARGETS[config.targets]
    if config.network_type == "LoKr":
        arguments["factor"] = str(config.lokr_factor or -1)
    switches = {
        "decompose_both": config.lokr_factors == "both by rank",
        "full_matrix": config.lokr_factors == "both whole",
        "dora_wd": config.use_dora,
        "wd_on_output": config.use_dora,
        "rs_lora": config.use_rslora,
        "train_norm": config.train_norm,
    }
    arguments |= {name: "True" for name, is_on in switches.items() if is_on}
    numbers = ["rank_dropout", "module_dropout"]
    if config.is_lycoris:  # of a plain LoRA the tensors tell
        numbers += ["conv_rank", "conv_alpha"]
    for name in numbers:
        if number := getattr(config, name):
            arguments[name.replace("conv_rank", "conv_dim")] = f"{number:g}"
    return arguments
