"""Networks and tokenizers of single files.

Knows: how tensors of one prefix become a network, names of the original repositories and of
OpenCLIP, 8-bit weights with a scale, CLIP's own vocabulary. Does not know: where a part lies
(storage/models), families; networks from folders (components.py).

The network is built without memory, so that a part takes no more than its own size: tensors stay
mapped to the file where their number format is the wanted one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel

from studio.engine.models import private_diffusers
from studio.engine.models.devices import Device
from studio.errors import BadFile
from studio.settings import shipped
from studio.storage.models.model_info import PartFile
from studio.storage.models.quantised_weights import SCALE_ENDINGS

MAX_TOKENS = 77  # of a text that CLIP reads at once
BEGIN_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
# Beside the weights: counted positions, OpenCLIP's temperature, marks of 8-bit weights.
_NO_WEIGHTS = (
    "position_ids",
    "logit_scale",
    "scaled_fp8",
    ".comfy_quant",
    ".input_scale",
    ".scale_input",
    *SCALE_ENDINGS,
)
# Older versions of diffusers called an autoencoder's attention so.
_OLD_ATTENTION_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
_TEXT_MODEL = "text_model."

Tensors = dict[str, torch.Tensor]


def load_part_file(
    network_class: Any, part: PartFile, *, title: str, device: Device, dtype: torch.dtype
) -> torch.nn.Module:
    """Read a network from the file that holds it, to the device.

    Args:
        network_class: Class of diffusers or transformers.
        part: Where its weights lie, and what it is built with.
        title: What errors call it, such as "unet of foo".
        device: Where it goes.
        dtype: The number format it gets.

    Raises:
        BadFile: The file is broken, lacks weights or has them in other shapes.
    """
    try:
        network = _build_empty(network_class, part)
    except Exception as error:  # of odd sizes the libraries raise anything
        raise BadFile(
            f"The {title} is of another build than the studio knows ({error!s:.120})."
        ) from error
    try:
        tensors = _read_tensors(part, dtype)
    except (SafetensorError, OSError) as error:
        raise BadFile(
            f"The {title} cannot be read ({type(error).__name__}: {error!s:.100}). "
            "Copy the file again."
        ) from error
    try:
        weights = _rename(part, network, tensors)
    except KeyError as error:  # the name that is looked for is not there
        raise BadFile(f"The {title} lacks {error.args[0]!s:.100}. Copy the file again.") from None
    _check_shapes(network, weights, title)
    for name in weights:
        weights[name] = weights[name].to(device.torch_device, dtype).contiguous()
    network.load_state_dict(weights, strict=True, assign=True)
    return network


def _build_empty(network_class: Any, part: PartFile) -> torch.nn.Module:
    """Return a network whose weights take no memory; its buffers are real."""
    with init_empty_weights():
        if hasattr(network_class, "from_config"):
            network: torch.nn.Module = network_class.from_config(dict(part.config))
        else:
            network = network_class(CLIPTextConfig(**part.config))
    return network


def _read_tensors(part: PartFile, dtype: torch.dtype) -> Tensors:
    """Return the tensors of a part without their prefix; 8-bit ones times their scale."""
    tensors: Tensors = {}
    with safe_open(part.path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(part.prefix)]  # noqa: SIM118
        scales = {
            f"{name.rpartition('.')[0]}.weight": name
            for name in names
            if name.endswith(SCALE_ENDINGS)
        }
        for name in names:
            if name.endswith(_NO_WEIGHTS):
                continue
            tensor = file.get_tensor(name)
            if name in scales:
                scale = file.get_tensor(scales[name]).float()
                if scale.numel() > 1:  # one for each row
                    scale = scale.reshape(-1, *[1] * (tensor.dim() - 1))
                tensor = (tensor.float() * scale).to(dtype)
            tensors[name.removeprefix(part.prefix)] = tensor
    return tensors


def _rename(part: PartFile, network: Any, tensors: Tensors) -> Tensors:
    """Return the tensors by the names that the network has for them. Raises KeyError."""
    match part.naming:
        case "ldm":
            if part.config["_class_name"] == "AutoencoderKL":
                return private_diffusers.convert_vae(tensors, part.config)
            return private_diffusers.convert_unet(tensors, part.config)
        case "open clip":
            tensors = private_diffusers.convert_open_clip(network, tensors)
            last = part.config["num_hidden_layers"]
            weights = {
                name: tensor for name, tensor in tensors.items() if _get_layer_number(name) < last
            }
        case "bare clip":
            weights = {f"{_TEXT_MODEL}{name}": tensor for name, tensor in tensors.items()}
        case "clip":
            weights = tensors
        case "diffusers":
            return {_renew_name(name): _squeeze_old(name, t) for name, t in tensors.items()}
    if isinstance(network, CLIPTextModel):  # its names begin a level deeper, and it gives no more
        return {
            name.removeprefix(_TEXT_MODEL): tensor
            for name, tensor in weights.items()
            if name.startswith(_TEXT_MODEL)
        }
    return weights


def _get_layer_number(name: str) -> int:
    number = name.partition("encoder.layers.")[2].partition(".")[0]
    return int(number) if number.isdecimal() else -1


def _renew_name(name: str) -> str:
    for old, new in _OLD_ATTENTION_NAMES.items():
        name = name.replace(old, new)
    return name


def _squeeze_old(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a layer of an autoencoder's attention as a matrix; older files have convolutions."""
    is_old = any(old in name for old in _OLD_ATTENTION_NAMES)
    return tensor[:, :, 0, 0] if is_old and tensor.dim() == 4 else tensor


def _check_shapes(
    network: torch.nn.Module, weights: Mapping[str, torch.Tensor], title: str
) -> None:
    """Raise BadFile for the first weight that is missing, of another shape or too many."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise BadFile(f"The {title} lacks weights, such as {missing[0]:.100}. Copy the file again.")
    strange = sorted(weights.keys() - expected.keys())
    if strange:
        raise BadFile(
            f"The {title} has weights that the studio does not know, such as {strange[0]:.100}."
        )
    for name, shape in expected.items():
        found = tuple(weights[name].shape)
        if found != shape:
            raise BadFile(
                f"The {title} has {name:.100} in the shape {found} instead of {shape}; it is of "
                "another build than the studio knows."
            )


# ---- CLIP's own tokenizer -----------------------------------------------------------------------


@functools.cache
def _read_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return CLIP's 49,408 tokens in their order, and how bytes are merged to them."""
    text = (shipped("assets") / "clip-tokenizer" / "merges.txt").read_text("utf-8")
    merges: list[tuple[str, str]] = []
    for line in text.splitlines():
        first, separator, second = line.partition(" ")
        if separator and not line.startswith("#version"):
            merges.append((first, second))
    letters = _list_byte_letters()
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters)]
    tokens += [first + second for first, second in merges]
    tokens += [BEGIN_OF_TEXT, END_OF_TEXT]
    return {token: index for index, token in enumerate(tokens)}, merges


def _list_byte_letters() -> list[str]:
    """Return a letter for each byte, in the order of CLIP's vocabulary (GPT-2's byte letters)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + number) for number in range(len(hidden))]


def build_clip_tokenizer(tokenizer_class: Any, pad_token: str) -> Any:
    """Return CLIP's tokenizer, as OpenAI published it.

    Args:
        tokenizer_class: transformers' CLIPTokenizer.
        pad_token: What fills a short text up; SD 2.x and SDXL's second encoder take "!".
    """
    vocabulary, merges = _read_vocabulary()
    return tokenizer_class(
        vocab=dict(vocabulary),
        merges=list(merges),
        pad_token=pad_token,
        model_max_length=MAX_TOKENS,
    )
