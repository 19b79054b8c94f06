"""What captioners that run on this machine share: loading, and several pictures in one call.

Knows: models of transformers that write text about a picture, greedy unless their own folder says otherwise.
Does not know: which kinds there are (git.py, blip.py, florence2.py), datasets, what becomes of the words.

Pictures are brought to the model's own size and told the same words, so rows of a batch need no padding before they begin; rows
that end early are padded behind their end. A caption therefore depends on the batch by rounding alone.
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
from studio.engine.models import transformers_loader
from studio.engine.models.devices import Device
from studio.storage.models.transformers_models import NetworkInfo

Heard = Callable[[Mapping[int, str]], None]


@dataclass
class Local:
    """A loaded captioner."""

    MODEL: ClassVar[Any]
    READER: ClassVar[Any]

    kind: str
    model: Any
    reader: Any
    device: Device

    @classmethod
    def load(cls, info: NetworkInfo, device: Device) -> Self:
        """From its folder. Raises BadFile."""
        model, reader = transformers_loader.load(cls.MODEL, cls.READER, info, device)
        return cls(info.kind, model, reader, device)

    def look(self, picture: Image.Image, asked: CaptionSpec) -> torch.Tensor:
        """A picture as the model sees it: (channels, height, width). May be called in several threads."""
        return self.reader.image_processor(images=picture, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def caption(
        self,
        looks: Sequence[torch.Tensor],
        asked: CaptionSpec,
        beat: Callable[[], None],
        heard: Heard,
    ) -> dict[int, str]:
        """Tell `heard` what is said about each, by number. `beat` is called at each token and may raise. Gives those that could
        not be captioned, with the reason: none."""
        where, words = self.device.torch, self.words(asked.instruction)
        told = {name: each.repeat(len(looks), 1).to(where) for name, each in words.items()}
        usual = CAPTIONERS[self.kind].tokens or 1
        ids = self.model.generate(
            pixel_values=torch.stack(list(looks)).to(where, self.device.dtype),
            **told,
            do_sample=False,
            max_new_tokens=max(1, min(asked.tokens or usual, self.room(words))),
            stopping_criteria=StoppingCriteriaList([_Beat(beat)]),
        )
        heard(dict(enumerate(self.texts(ids, asked.instruction))))
        return {}

    def words(self, instruction: str) -> dict[str, torch.Tensor]:
        """What the model is told beside the picture: tensors (1, length)."""
        raise NotImplementedError

    def room(self, words: Mapping[str, torch.Tensor]) -> int:
        """How many tokens the model can write after those."""
        before = words["input_ids"].shape[1] if "input_ids" in words else 1
        return int(self.model.config.get_text_config(decoder=True).max_position_embeddings) - before

    def texts(self, ids: torch.Tensor, instruction: str) -> list[str]:
        """Written tokens (rows, length) as text."""
        return [text.strip() for text in self.reader.batch_decode(ids, skip_special_tokens=True)]


class _Beat(StoppingCriteria):
    """Stops nothing by itself, but is heard at each token."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **more: Any) -> torch.Tensor:
        self._beat()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
