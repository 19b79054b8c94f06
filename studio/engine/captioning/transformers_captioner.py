"""What captioners that run on this machine share: loading, and several images in one call.

Knows: models of transformers that write text about an image, greedily unless their own folder says
otherwise.
Does not know: which kinds there are (git.py, blip.py, florence2.py), datasets, what becomes of the
captions.

Images are brought to the model's own size and get the same prompt, so rows of a batch need no
padding before they begin; rows that end early are padded behind their end. A caption therefore
depends on the batch by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList

from studio.core.captions.spec import CaptionSpec
from studio.core.catalog import CAPTIONERS
from studio.engine.captioning.captioner import CaptionCallback
from studio.engine.models import transformers_loader
from studio.engine.models.devices import Device
from studio.storage.models.transformers_models import TransformersModelInfo


@dataclass
class TransformersCaptioner:
    """A loaded captioner."""

    MODEL_CLASS: ClassVar[Any]
    PROCESSOR_CLASS: ClassVar[Any]

    kind: str
    model: Any
    processor: Any
    device: Device

    @classmethod
    def load(cls, info: TransformersModelInfo, device: Device) -> Self:
        """Load a captioner from its folder. Raises BadFile."""
        model, processor = transformers_loader.load_model(
            cls.MODEL_CLASS, cls.PROCESSOR_CLASS, info, device
        )
        return cls(info.model_type, model, processor, device)

    def prepare_image(self, image: Image.Image, spec: CaptionSpec) -> torch.Tensor:
        """Return an image as the model sees it: (channels, height, width).

        May be called in several threads.
        """
        return self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def caption_images(
        self,
        images: Sequence[torch.Tensor],
        spec: CaptionSpec,
        check_cancelled: Callable[[], None],
        on_captions: CaptionCallback,
    ) -> dict[int, str]:
        """Caption a batch of prepared images.

        Args:
            images: n images from `prepare_image`.
            spec: Instruction and number of tokens.
            check_cancelled: Called at each token; may raise to stop.
            on_captions: Receives captions by the index of their image.

        Returns:
            The images that could not be captioned, by index, with the reason: none.
        """
        device = self.device.torch_device
        prompt_inputs = self.tokenize_prompt(spec.instruction)
        batch_inputs = {
            name: tensor.repeat(len(images), 1).to(device) for name, tensor in prompt_inputs.items()
        }
        max_tokens = spec.tokens or CAPTIONERS[self.kind].max_tokens or 1
        max_tokens = max(1, min(max_tokens, self.count_free_tokens(prompt_inputs)))
        token_ids = self.model.generate(
            pixel_values=torch.stack(list(images)).to(device, self.device.dtype),
            **batch_inputs,
            do_sample=False,
            max_new_tokens=max_tokens,
            stopping_criteria=StoppingCriteriaList([_CancelCheck(check_cancelled)]),
        )
        on_captions(dict(enumerate(self.decode_tokens(token_ids, spec.instruction))))
        return {}

    def tokenize_prompt(self, instruction: str) -> dict[str, torch.Tensor]:
        """Return what the model gets beside the image: tensors (1, length)."""
        raise NotImplementedError

    def count_free_tokens(self, prompt_inputs: Mapping[str, torch.Tensor]) -> int:
        """Return how many tokens the model can write after a prompt."""
        num_prompt_tokens = 1
        if "input_ids" in prompt_inputs:
            num_prompt_tokens = prompt_inputs["input_ids"].shape[1]
        config = self.model.config.get_text_config(decoder=True)
        return int(config.max_position_embeddings) - num_prompt_tokens

    def decode_tokens(self, token_ids: torch.Tensor, instruction: str) -> list[str]:
        """Return written tokens (n, length) as n texts."""
        texts = self.processor.batch_decode(token_ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


class _CancelCheck(StoppingCriteria):
    """Stops nothing by itself, but is called at each token."""

    def __init__(self, check_cancelled: Callable[[], None]) -> None:
        self._check_cancelled = check_cancelled

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Return that no row (n,) is finished. Raises what the check raises."""
        self._check_cancelled()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
