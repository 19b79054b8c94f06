"""LoRAs for tests: made by peft on a stock pipeline, saved as kohya, diffusers and peft save them. Imports nothing of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
CONVS = [
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "conv_in",
    "conv_out",
]
READER = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
NETWORKS = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
LARGE = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te1_text_model_",
    "text_encoder_2": "lora_te2_text_model_",
}
# What SDXL's own code calls the blocks of toy-sdxl, written down by hand.
SGM = {
    "time_embedding_linear_1": "time_embed_0",
    "time_embedding_linear_2": "time_embed_2",
    "conv_in": "input_blocks_0_0",
    "add_embedding_linear_1": "label_emb_0_0",
    "add_embedding_linear_2": "label_emb_0_2",
    "conv_out": "out_2",
    "down_blocks_0_resnets_0": "input_blocks_1_0",
    "down_blocks_0_downsamplers_0_conv": "input_blocks_2_0_op",
    "down_blocks_1_resnets_0": "input_blocks_3_0",
    "down_blocks_1_attentions_0": "input_blocks_3_1",
    "mid_block_resnets_0": "middle_block_0",
    "mid_block_attentions_0": "middle_block_1",
    "mid_block_resnets_1": "middle_block_2",
    "up_blocks_0_resnets_0": "output_blocks_0_0",
    "up_blocks_0_attentions_0": "output_blocks_0_1",
    "up_blocks_0_resnets_1": "output_blocks_1_0",
    "up_blocks_0_attentions_1": "output_blocks_1_1",
    "up_blocks_0_upsamplers_0_conv": "output_blocks_1_2_conv",
    "up_blocks_1_resnets_0": "output_blocks_2_0",
    "up_blocks_1_resnets_1": "output_blocks_3_0",
}
INSIDE = {
    "_conv1": "_in_layers_2",
    "_conv2": "_out_layers_3",
    "_time_emb_proj": "_emb_layers_1",
    "_conv_shortcut": "_skip_connection",
}


def stock(folder: Path) -> Any:
    """The folder's pipeline, as diffusers loads it."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def networks(pipe: Any) -> dict[str, Any]:
    return {
        name: getattr(pipe, name)
        for name in ("unet", "text_encoder", "text_encoder_2")
        if getattr(pipe, name, None)
    }


def attach(network: Any, config: LoraConfig) -> None:
    """Put peft's layers into a stock network as its adapter `default`, by peft's own public function."""
    inject_adapter_in_model(config, network, "default")
    network.peft_config = {"default": config}


def add(
    pipe: Any,
    *,
    rank: int = 4,
    alpha: float = 2,
    convs: bool = False,
    only: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Put a random LoRA on a stock pipeline with peft; its tensors by network, under peft's names."""
    torch.manual_seed(seed)
    found = {}
    for name, network in networks(pipe).items():
        if only and not name.startswith(only):
            continue
        targets = (ATTENTION + CONVS * convs) if name == "unet" else READER
        attach(
            network,
            LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights=False),
        )
        for layer in (module for module in network.modules() if isinstance(module, LoraLayer)):
            for matrix in (*layer.lora_A.values(), *layer.lora_B.values()):
                torch.nn.init.normal_(matrix.weight, std=0.15)
        state = get_peft_model_state_dict(network, adapter_name="default")
        found[name] = {key: tensor.detach().clone() for key, tensor in state.items()}
    return found


def weigh(pipe: Any, unet: float, reader: float | None = None) -> None:
    """Set how strong peft's LoRA on a stock pipeline is."""
    for name, network in networks(pipe).items():
        weight = unet if name == "unet" or reader is None else reader
        for layer in (module for module in network.modules() if isinstance(module, LoraLayer)):
            layer.enable_adapters(bool(weight))
            layer.set_scale("default", weight)


def kohya(
    path: Path, made: dict[str, Any], alpha: float | None, sgm: bool = False, **metadata: str
) -> Path:
    """As kohya's trainer saves it."""
    prefixes, tensors = LARGE if "text_encoder_2" in made or sgm else NETWORKS, {}
    for network, weights in made.items():
        for key, tensor in weights.items():
            name, _, role = key.removesuffix(".weight").rpartition(".")
            name = name.removeprefix("text_model.").replace(".", "_")
            if sgm and network == "unet":
                block = next(
                    block for block in SGM if name == block or name.startswith(f"{block}_")
                )
                rest = name.removeprefix(block)
                name = SGM[block] + INSIDE.get(rest, rest)
            stem = f"{prefixes[network]}{name}"
            tensors[f"{stem}.lora_{'down' if role == 'lora_A' else 'up'}.weight"] = (
                tensor.contiguous()
            )
            if alpha is not None:
                tensors[f"{stem}.alpha"] = torch.tensor(float(alpha))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata or None)
    return path


def saved_by_diffusers(
    path: Path, pipe: Any, made: dict[str, Any], converted: bool = False
) -> Path:
    """As diffusers saves it, with peft's settings in the header.

    `converted` by the helper of its training scripts, which renames the attention layers and no others: diffusers itself
    loses the attention of such a file where it begins with another layer.
    """
    layers, metadata = {}, {}
    for network, weights in made.items():
        layers[f"{network}_lora_layers"] = (
            convert_state_dict_to_diffusers(weights) if converted else weights
        )
        metadata[f"{network}_lora_adapter_metadata"] = (
            networks(pipe)[network].peft_config["default"].to_dict()
        )
    type(pipe).save_lora_weights(path.parent, weight_name=path.name, **layers, **metadata)
    return path


def old_diffusers(path: Path, made: dict[str, Any]) -> Path:
    """As diffusers saved it before peft: `attn1.processor.to_q_lora.down`, no alpha. Attention of the U-Net only."""
    tensors = {}
    for key, tensor in made["unet"].items():
        name, _, role = key.removesuffix(".weight").rpartition(".")
        block, _, layer = name.rpartition(".to_")
        tensors[
            f"unet.{block}.processor.to_{layer.removesuffix('.0')}_lora.{'down' if role == 'lora_A' else 'up'}.weight"
        ] = tensor
    save_file(tensors, path)
    return path


def saved_by_peft(folder: Path, pipe: Any, made: dict[str, Any]) -> Path:
    """As `PeftModel.save_pretrained` does: the alpha stands in adapter_config.json beside it. U-Net only."""
    folder.mkdir(parents=True)
    pipe.unet.peft_config["default"].save_pretrained(folder)
    tensors = {
        f"base_model.model.{key}": tensor.contiguous() for key, tensor in made["unet"].items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder / "adapter_model.safetensors"
