"""Stable Diffusion 1.x, as it is computed."""

from __future__ import annotations

from transformers import CLIPTextModel

from studio.engine.models.families.unet import UNetModel


class Model(UNetModel):
    """A U-Net that reads one text encoder."""

    @property
    def text_encoder_classes(self) -> tuple[type, ...]:
        return (CLIPTextModel,)
