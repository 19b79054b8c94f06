"""LoRAs for tests: made by peft on a stock pipeline, saved as kohya, diffusers and peft save them. Imports nothing of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

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


def collect_pairs(pipe: Any) -> dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor, float]]:
    """Matrices down and up and the alpha of peft's LoRA on a stock pipeline, by network and path."""
    return {
        (name, path): (
            layer.lora_A["default"].weight.detach(),
            layer.lora_B["default"].weight.detach(),
            float(layer.lora_alpha["default"]),
        )
        for name, network in networks(pipe).items()
        for path, layer in network.named_modules()
        if isinstance(layer, LoraLayer)
    }


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


# ---- relatives of LoRA: a layer's tensors as LyCORIS and kohya save them, and what the papers make of its weights --


def draw(*shape: int, std: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape) * std


def factors(size: int) -> tuple[int, int]:
    """A Kronecker product's two sides."""
    small = next(side for side in (4, 3, 2, 1) if size % side == 0)
    return small, size // small


def make_lora(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """LoRA and LoCon: up · down · alpha / rank."""
    out, *inputs = weight.shape
    down, up = draw(3, *inputs), draw(out, 3, *[1] * (weight.ndim - 2), std=0.02)
    change = torch.stack(
        [(up[o].flatten()[:, None] * down.flatten(1)).sum(0) for o in range(out)]
    ).reshape(weight.shape)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.5)}
    return tensors, change * 1.5 / 3


def make_tucker_locon(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """LoCon with a kernel between the two."""
    if weight.ndim == 2 or weight.shape[2] == 1:
        return make_lora(weight)
    out, inputs, *kernel = weight.shape
    down, mid, up = draw(3, inputs, 1, 1), draw(2, 3, *kernel), draw(out, 2, 1, 1, std=0.015)
    change = sum(
        up[:, i, 0, 0, None, None, None] * mid[i, j] * down[j, :, 0, 0, None, None]
        for i in range(2)
        for j in range(3)
    )
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    return tensors | {"alpha": torch.tensor(1.5)}, change * 1.5 / 3


def make_loha(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """FedPara, proposition 1: (X1 Y1ᵀ) ⊙ (X2 Y2ᵀ)."""
    out, inputs = weight.flatten(1).shape
    sides = [(draw(out, 3, std=0.2), draw(3, inputs, std=0.3)) for _ in range(2)]
    first, second = (sum(torch.outer(a[:, k], b[k]) for k in range(3)) for a, b in sides)
    tensors = {
        f"hada_w{n}_{name}": side
        for n, pair in enumerate(sides, 1)
        for name, side in zip("ab", pair)
    }
    change = (first * second).reshape(weight.shape) * 2 / 3
    return tensors | {"alpha": torch.tensor(2.0)}, change


def make_tucker_loha(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """FedPara, proposition 3: (T1 ×1 X1 ×2 Y1) ⊙ (T2 ×1 X2 ×2 Y2)."""
    if weight.ndim == 2 or weight.shape[2] == 1:
        return make_loha(weight)
    out, inputs, *kernel = weight.shape
    tensors, change = {"alpha": torch.tensor(2.0)}, torch.ones_like(weight) * 2 / 3
    for n in (1, 2):
        core, a, b = draw(3, 3, *kernel), draw(3, out, std=0.15), draw(3, inputs, std=0.25)
        tensors |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        change *= sum(
            a[i][:, None, None, None] * b[j][:, None, None] * core[i, j]
            for i in range(3)
            for j in range(3)
        )
    return tensors, change


def make_lokr(
    weight: torch.Tensor, w1_rank: int = 0, w2_rank: int = 0, tucker: bool = False
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """LyCORIS, LoKr: w1 ⊗ w2, each whole or of low rank, the second with a kernel between or not."""
    (out_l, out_k), (in_m, in_n) = factors(weight.shape[0]), factors(weight.shape[1])
    kernel, tensors, scale = weight.shape[2:], {}, 1.0
    if w1_rank:
        a, b = draw(out_l, w1_rank), draw(w1_rank, in_m)
        w1, scale = a @ b, 2 / w1_rank
        tensors |= {"lokr_w1_a": a, "lokr_w1_b": b, "alpha": torch.tensor(2.0)}
    else:
        w1 = tensors["lokr_w1"] = draw(out_l, in_m)
        tensors["alpha"] = torch.tensor(7.0)  # which whole factors do not use
    if w2_rank:
        scale, tensors["alpha"] = 2 / w2_rank, torch.tensor(2.0)
    if w2_rank and tucker and kernel and kernel[0] > 1:
        core = draw(w2_rank, w2_rank, *kernel)
        a, b = draw(w2_rank, out_k, std=0.01), draw(w2_rank, in_n)
        w2 = sum(
            a[i][:, None, None, None] * b[j][:, None, None] * core[i, j]
            for i in range(w2_rank)
            for j in range(w2_rank)
        )
        tensors |= {"lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}
    elif w2_rank:
        a, b = draw(out_k, w2_rank, std=0.01), draw(w2_rank, in_n * kernel.numel())
        w2 = (a @ b).reshape(out_k, in_n, *kernel)
        tensors |= {"lokr_w2_a": a, "lokr_w2_b": b}
    else:
        w2 = tensors["lokr_w2"] = draw(out_k, in_n, *kernel, std=0.01)
    blocks = [torch.cat([factor * w2 for factor in row], 1) for row in w1]
    return tensors, torch.cat(blocks, 0) * scale


def make_dora(
    weight: torch.Tensor, change_of: Any = make_lora, axis: int = 0, name: str = "dora_scale"
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """DoRA, equation 5: m (W + ΔW) / ‖W + ΔW‖, here minus W; the norm along an axis."""
    tensors, change = change_of(weight)
    others = [k for k in range(weight.ndim) if k != axis]
    magnitude = weight.pow(2).sum(others, keepdim=True).sqrt() * (
        1 + 0.2 * torch.randn([weight.shape[k] if k == axis else 1 for k in range(weight.ndim)])
    )
    turned = weight + change
    norm = turned.pow(2).sum(others, keepdim=True).sqrt()
    tensors[name] = magnitude.flatten() if name != "dora_scale" else magnitude
    return tensors, magnitude * turned / norm - weight


def make_oft(
    weight: torch.Tensor, constraint: float = 0.0, rescale: bool = False, stages: int = 0
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """OFT: R W with R block-diagonal and orthogonal; BOFT: a product of permuted ones."""
    out = weight.shape[0]
    size = 4 if out % 4 == 0 else 1
    shape = (out // size, size, size)
    stages = min(stages, (out // 4).bit_length())
    blocks = draw(*((stages,) if stages else ()), *shape, std=0.08)
    skew = blocks - blocks.transpose(-1, -2)
    limit, norm = constraint * out, skew.norm()
    if 0 < limit < norm:
        skew = skew * limit / norm
    eye = torch.eye(size)
    turns = torch.linalg.solve(eye - skew, eye + skew, left=False)
    if stages:
        whole = torch.eye(out)
        for stage, turn in enumerate(turns):
            stride = size // 2 * 2**stage  # channel c of a group is next to c + stride
            order = torch.arange(out).reshape(-1, 2, stride).transpose(1, 2).flatten()
            shuffle = torch.eye(out)[order]
            whole = shuffle.T @ torch.block_diag(*turn) @ shuffle @ whole
    else:
        whole = torch.block_diag(*turns).T
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(constraint)}
    if rescale:
        tensors["rescale"] = 1 + 0.2 * torch.randn(out, *[1] * (weight.ndim - 1))
        whole = tensors["rescale"].reshape(-1, 1) * whole
    return tensors, (whole @ weight.flatten(1)).reshape(weight.shape) - weight


def make_ia3(
    weight: torch.Tensor, on_input: bool = False
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(IA)³ of LyCORIS: weights times 1 + l along one axis."""
    axis = 1 if on_input else 0
    vector = draw(weight.shape[axis], std=0.2)
    shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
    saved = vector if weight.ndim == 2 else vector.reshape(1, -1, *[1] * (weight.ndim - 2))
    return {"weight": saved, "on_input": torch.tensor(int(on_input))}, weight * vector.reshape(
        shape
    )


def make_difference(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The difference itself."""
    change = torch.randn_like(weight) * 0.1 * weight.std()
    return {"diff": change}, change


# Layers of every form: linear with 2 and 3 dimensions, convolutions with and without kernel and stride.
PLACES = (
    "mid_block",
    "down_blocks.0.downsamplers",
    "time_embedding",
    "conv_out",
    "encoder.layers.0",
)
RELATIVES: dict[str, Any] = {
    "LoRA": make_lora,
    "LoCon with Tucker": make_tucker_locon,
    "LoHa": make_loha,
    "LoHa with Tucker": make_tucker_loha,
    "LoKr of whole factors": make_lokr,
    "LoKr of low rank": lambda weight: make_lokr(weight, w2_rank=3),
    "LoKr of two low ranks": lambda weight: make_lokr(weight, w1_rank=2, w2_rank=2),
    "LoKr with Tucker": lambda weight: make_lokr(weight, w2_rank=3, tucker=True),
    "DoRA": make_dora,
    "DoRA along inputs": lambda weight: make_dora(weight, axis=1),
    "DoRA of diffusers": lambda weight: make_dora(weight, name="lora_magnitude_vector"),
    "LoHa with DoRA": lambda weight: make_dora(weight, make_loha),
    "LoKr with DoRA": lambda weight: make_dora(weight, make_lokr, axis=1),
    "OFT": make_oft,
    "OFT, limited and rescaled": lambda weight: make_oft(weight, 0.002, rescale=True),
    "BOFT": lambda weight: make_oft(weight, stages=2),
    "(IA)³": make_ia3,
    "(IA)³ on inputs": lambda weight: make_ia3(weight, on_input=True),
    "full difference": make_difference,
}


def add_relative(
    path: Path, pipe: Any, kind: str, seed: int = 0, places: tuple[str, ...] = PLACES
) -> dict[tuple[str, str], torch.Tensor]:
    """Save a random adapter of a kind in kohya's names; return the changes of weights by network and layer."""
    torch.manual_seed(seed)
    tensors, changes = {}, {}
    for network, module in networks(pipe).items():
        prefix = (LARGE if hasattr(pipe, "text_encoder_2") else NETWORKS)[network]
        for name, layer in module.named_modules():
            is_target = isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
            if not is_target or not name.startswith(places):
                continue
            made, change = RELATIVES[kind](layer.weight.detach())
            stem = prefix + name.removeprefix("text_model.").replace(".", "_")
            tensors |= {f"{stem}.{ending}": tensor.contiguous() for ending, tensor in made.items()}
            changes[network, name] = change
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return changes


def merge(pipe: Any, changes: dict[tuple[str, str], torch.Tensor], weight: float) -> None:
    """Add changes to the weights of a stock pipeline, for good."""
    with torch.no_grad():
        for (network, name), change in changes.items():
            networks(pipe)[network].get_submodule(name).weight += weight * change


def renamed(source: Path, path: Path, *changes: tuple[str, str]) -> Path:
    """A copy of a file with other names of tensors."""
    tensors = {}
    for key, tensor in load_file(source).items():
        for old, new in changes:
            key = key.replace(old, new)
        tensors[key] = tensor
    save_file(tensors, path)
    return path


def numbered(path: Path, pipe: Any, seed: int = 0) -> dict[tuple[str, str], torch.Tensor]:
    """As lora_diffusion saved it in 2022: layers by their number, in the order of diffusers 0.10."""
    torch.manual_seed(seed)
    tensors, changes = {}, {}
    orders = {
        "unet": [
            f"{block}.{layer}"
            for block, module in pipe.unet.named_modules()
            if type(module).__name__ == "BasicTransformerBlock"
            for layer in (
                *(f"attn1.to_{side}" for side in ("q", "k", "v", "out.0")),
                "ff.net.0.proj",
                *(f"attn2.to_{side}" for side in ("q", "k", "v", "out.0")),
            )
        ],
        "text_encoder": [
            f"{block}.{side}_proj"
            for block, module in pipe.text_encoder.named_modules()
            if type(module).__name__ == "CLIPAttention"
            for side in ("k", "v", "q", "out")
        ],
    }
    for network, order in orders.items():
        for number, name in enumerate(order):
            weight = networks(pipe)[network].get_submodule(name).weight
            down, up = draw(2, weight.shape[1]), draw(weight.shape[0], 2, std=0.05)
            tensors |= {f"{network}:{number}:down": down, f"{network}:{number}:up": up}
            changes[network, name] = up @ down
    classes = {
        "unet": '["CrossAttention", "Attention", "GEGLU"]',
        "text_encoder": '["CLIPAttention"]',
    }
    save_file(tensors, path, classes)
    return changes


def trained_by_peft(folder: Path, pipe: Any, config: Any, seed: int = 0) -> Path:
    """A kind of peft's on the U-Net, with random numbers, as `PeftModel.save_pretrained` saves it; it stays on."""
    torch.manual_seed(seed)
    attach(pipe.unet, config)
    state = get_peft_model_state_dict(pipe.unet, adapter_name="default")
    with torch.no_grad():
        for key, tensor in state.items():
            if "magnitude" in key or "ia3" in key:
                tensor *= 1 + 0.2 * torch.randn_like(tensor)
            else:
                tensor.copy_((0.4 if "hada" in key else 0.1) * torch.randn_like(tensor))
    pipe.unet.eval()
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tensors = {f"base_model.model.{key}": tensor.contiguous() for key, tensor in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder / "adapter_model.safetensors"


def multiply_out(
    tensors: dict[str, torch.Tensor], weight: torch.Tensor, alpha: float
) -> torch.Tensor:
    """A layer's weights with what a file has for it, by the formulas of the papers.

    LoRA arXiv:2106.09685, LoHa arXiv:2108.06098, LoKr arXiv:2309.14859, DoRA arXiv:2402.09353.
    """
    get = {name.removesuffix(".weight").removeprefix("lora_"): t for name, t in tensors.items()}
    if "w_norm" in get:
        return weight + get["w_norm"]
    flat = weight.flatten(1)
    if "hada_w1_a" in get:
        change = (get["hada_w1_a"] @ get["hada_w1_b"]) * (get["hada_w2_a"] @ get["hada_w2_b"])
        change = change * alpha / get["hada_w1_b"].shape[0]
    elif "up" in get:
        change = get["up"].flatten(1) @ get["down"].flatten(1) * alpha / get["down"].shape[0]
    else:
        first, second = get.get("lokr_w1"), get.get("lokr_w2")
        ranks = [get[key].shape[0] for key in ("lokr_w2_b", "lokr_w1_b") if key in get]
        if first is None:
            first = get["lokr_w1_a"] @ get["lokr_w1_b"]
        if second is None:
            second = get["lokr_w2_a"] @ get["lokr_w2_b"]
        second = second.view(second.shape[0], weight.shape[1] // first.shape[1], *weight.shape[2:])
        first = first.view(*first.shape, *(1,) * (weight.ndim - 2))
        change = torch.kron(first, second.contiguous()).flatten(1)
        change = change * (alpha / ranks[0] if ranks else 1)
    changed = flat + change.view_as(flat)
    if "dora_scale" in get:
        norm = changed.norm(dim=1, keepdim=True).detach()  # a constant in the backward pass
        changed = get["dora_scale"].flatten(1) * changed / norm
    return changed.view_as(weight)


def read_by_layer(path: Path, prefix: str = "lora_unet_") -> dict[str, dict[str, torch.Tensor]]:
    """A kohya file's tensors by layer and ending, of one network."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(path).items():
        stem, _, ending = key.partition(".")
        if stem.startswith(prefix):
            layers.setdefault(stem.removeprefix(prefix), {})[ending] = tensor.float()
    return layers


def merge_file(pipe: Any, path: Path) -> int:
    """Multiply a kohya file of SD 1.x out into a stock pipeline, for good; return how many layers it had."""
    count = 0
    for network, prefix in NETWORKS.items():
        paths = {
            name.removeprefix("text_model.").replace(".", "_"): name
            for name, _ in getattr(pipe, network).named_modules()
        }
        for stem, tensors in read_by_layer(path, prefix).items():
            layer = getattr(pipe, network).get_submodule(paths[stem])
            alpha = float(tensors.pop("alpha", torch.tensor(1.0)))
            with torch.no_grad():
                layer.weight.copy_(multiply_out(tensors, layer.weight, alpha))
                if "b_norm" in tensors:
                    layer.bias += tensors["b_norm"]
            count += 1
    return count
