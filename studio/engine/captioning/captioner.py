"""What every captioner is, of this machine or an endpoint.

Knows: how one is asked. Does not know: any of them (transformers_captioner.py, openai_endpoint.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from studio.core.captions.spec import CaptionSpec

CaptionCallback = Callable[[Mapping[int, str]], None]  # captions by the index of their image


class Captioner(Protocol):
    """Something that captions images, several in one call."""

    kind: str

    def prepare_image(self, image: Image.Image, spec: CaptionSpec) -> Any:
        """Return an image as `caption_images` takes it. May be called in several threads."""

    def caption_images(
        self,
        images: Sequence[Any],
        spec: CaptionSpec,
        check_cancelled: Callable[[], None],
        on_captions: CaptionCallback,
    ) -> dict[int, str]:
        """Caption a batch of prepared images.

        Args:
            images: n images from `prepare_image`.
            spec: Instruction, number of tokens, and what else a kind takes.
            check_cancelled: Called several times a second; may raise to stop.
            on_captions: Receives captions as they come, from any thread.

        Returns:
            The images that could not be captioned, by index, with the reason.
        """
