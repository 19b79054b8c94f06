"""One image from its request to its pixels: what it starts from, and what becomes of the latents.

Knows: the image and mask of a request, how they become a trajectory's start, how the result is put
back into the image, the second pass.
Does not know: the loop, what else runs meanwhile, the gallery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from studio.core.generation import geometry, rules
from studio.core.generation.geometry import Size
from studio.core.generation.request import SEED_LIMIT, ResolvedRequest
from studio.engine.generation import latent_preview
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.trajectory import InitImage, Trajectory
from studio.engine.models.loaded_model import Conditioning, LoadedModel
from studio.errors import InvalidSpec, OutOfMemory, StudioError
from studio.imaging import canvas, masks
from studio.imaging.canvas import Window
from studio.storage.gallery import STOPPED_KEY
from studio.storage.inputs import Inputs

Enlarge = Callable[[Image.Image, str, Size], Image.Image]  # by an upscaler's name, to a size
EMPTY_MASK_MESSAGE = (
    "Mask: nothing is masked; paint over the area to replace (or invert the mask, or grow it)."
)


@dataclass(eq=False)
class ImageTask:
    """One image to make. Without a trajectory the source image is only enlarged."""

    request: ResolvedRequest
    conditioning: Conditioning
    trajectory: Trajectory | None
    source_image: Image.Image | None = None
    mask: Image.Image | None = None  # of the source image
    window: Window | None = None  # the part of the source image that is repainted
    hires_trajectory: Trajectory | None = None  # of the second pass, once that has begun
    enlarged_image: Image.Image | None = None  # what a second pass in tiles paints over
    is_tiled: bool = False  # whether memory did not suffice to decode it in one piece
    stopped_at: str = ""  # where a stop cut it short, such as "step 7 of 20"

    @property
    def tiles_note(self) -> str:
        """What people are told of an image that was decoded in tiles."""
        width, height = self.request.size
        size = f"{width} × {height}"
        if self.request.has_hires_pass:
            size += f" and {self.request.hires_scale:g} times that"
        return (
            f"There was not enough memory to decode {size} in one piece; it was decoded in tiles, "
            "whose colours may differ slightly."
        )

    @property
    def extra_contents(self) -> dict[str, str]:
        """What the PNG says of how this image was made, besides what all of the job share."""
        tiles = {"autoencoder": "in tiles"} if self.is_tiled else {}
        return tiles | self.stopped_contents

    @property
    def stopped_contents(self) -> dict[str, str]:
        """What marks an image that a stop cut short; nothing for a whole one."""
        return {STOPPED_KEY: self.stopped_at} if self.stopped_at else {}

    def estimate_x0(self) -> torch.Tensor | None:
        """Return an estimate of the finished latents; None before the first prediction."""
        trajectory = self.hires_trajectory or self.trajectory
        return trajectory.estimate_x0() if trajectory else None


def prepare_task(
    model: LoadedModel, request: ResolvedRequest, conditioning: Conditioning, inputs: Inputs
) -> ImageTask:
    """Prepare what a request of a single image starts from.

    Args:
        model: Borrowed for the request.
        request: With nothing left open.
        conditioning: Its encoded prompts.
        inputs: Where its image and mask are read.

    Raises:
        InvalidSpec: Nothing is masked.
        BadPicture: The image or the mask cannot be read.
    """
    if request.task == "txt2img":
        return ImageTask(request, conditioning, Trajectory(model, request, conditioning))
    image = inputs.load(request.image)
    if request.task == "img2img":
        image = canvas.resize_image(image, request.size, request.resize_mode)
        if not request.effective_steps:
            return ImageTask(request, conditioning, None, image)
        init_image = InitImage(request.strength, image_to_tensor(image))
        trajectory = Trajectory(model, request, conditioning, init_image)
        return ImageTask(request, conditioning, trajectory, image)
    drawn_mask = inputs.load_mask(request.mask) if request.task == "inpaint" else None
    mask = masks.build_mask(request, image.size, drawn_mask)
    if request.task == "outpaint":
        image = canvas.extend_image(
            image, request.extension, request.extend_fill, request.extend_colour, request.seed
        )
    box = masks.compute_inpaint_box(request, mask)
    if box is None:
        raise InvalidSpec([EMPTY_MASK_MESSAGE])
    window = Window.fit(box, request.size)
    init_image = _build_masked_init_image(model, request, window.crop(image), window.crop(mask))
    trajectory = Trajectory(model, request, conditioning, init_image)
    return ImageTask(request, conditioning, trajectory, image, mask, window)


def _build_masked_init_image(
    model: LoadedModel, request: ResolvedRequest, image: Image.Image, mask: Image.Image
) -> InitImage:
    """Return the start of a repaint from the window's image and mask."""
    latent_mask = torch.from_numpy(canvas.downscale_mask(mask, model.vae_scale_factor))
    rows, columns = model.latent_shape(*request.size)[2:]
    margin = (0, columns - latent_mask.shape[1], 0, rows - latent_mask.shape[0])
    latent_mask = torch.nn.functional.pad(latent_mask, margin)
    if not latent_mask.any():
        raise InvalidSpec([EMPTY_MASK_MESSAGE])
    if request.task == "inpaint" and request.masked_content == "fill":
        image = canvas.fill_masked(image, mask)
    device = model.device
    return InitImage(
        request.strength,
        pixels=image_to_tensor(image),
        mask_pixels=torch.from_numpy(canvas.downscale_mask(mask, 1))[None, None],
        latent_mask=latent_mask[None, None].to(device.torch_device, device.dtype),
        masked_content=request.masked_content if request.task == "inpaint" else "original",
    )


class TrajectoryRunner:
    """One model and the images that are made with it.

    `calls` and `rows` count what its U-Net did in both passes.
    """

    def __init__(
        self, model: LoadedModel, max_batch: int = 1, enlarge: Enlarge | None = None
    ) -> None:
        """Prepare a runner in which at most `max_batch` images share a U-Net call.

        Second passes run one by one.

        Args:
            model: Borrowed for the images.
            max_batch: How many of them are denoised at once.
            enlarge: Enlarges an image by an upscaler's name; needed for requests that name one.
        """
        self.model = model
        self._enlarge = enlarge
        self._base_batcher = Batcher(model, max_batch)
        self._hires_batcher = Batcher(model, 1)

    @property
    def calls(self) -> int:
        """How often the denoiser was called."""
        return self._base_batcher.calls + self._hires_batcher.calls

    @property
    def rows(self) -> int:
        """How many rows went through it in all calls."""
        return self._base_batcher.rows + self._hires_batcher.rows

    def run(
        self, tasks: Iterable[ImageTask], on_call: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[ImageTask, Image.Image | StudioError, float]]:
        """Make images; yield each as soon as it is ready.

        Args:
            tasks: Taken in turn, the next when there is room.
            on_call: Called after each U-Net call; what it raises ends everything.

        Yields:
            The task; its image or why there is none; its share of the seconds.

        Raises:
            RuntimeError: Not even a single one fits (see devices.is_out_of_memory).
            OutOfMemory: The autoencoder does not fit beside the denoiser.
        """
        task_by_trajectory: dict[Trajectory, ImageTask] = {}
        upscale_tasks: list[ImageTask] = []

        def iter_trajectories() -> Iterator[Trajectory]:
            for task in tasks:
                if task.trajectory is None:
                    upscale_tasks.append(task)
                else:
                    task_by_trajectory[task.trajectory] = task
                    yield task.trajectory

        results = self._base_batcher.denoise(iter_trajectories(), on_call)
        for trajectory, latents, seconds in results:
            task = task_by_trajectory.pop(trajectory)
            if isinstance(latents, StudioError):
                yield task, latents, seconds
            else:
                yield task, *self._finish_image(task, latents, seconds, on_call)
        for task in upscale_tasks:
            yield task, *self._finish_image(task, None, 0.0, on_call)

    def _finish_image(
        self,
        task: ImageTask,
        latents: torch.Tensor | None,
        seconds: float,
        on_call: Callable[[], Any],
    ) -> tuple[Image.Image | StudioError, float]:
        """Return the image, or why there is none, and its seconds in all."""
        start_time = time.perf_counter()
        num_tiled_calls = self.model.num_tiled_calls
        image: Image.Image | StudioError
        try:
            if task.request.has_hires_pass or latents is None:
                image = self._run_hires_pass(task, latents, on_call)
            else:
                image = decode_latents(self.model, latents, task.request.size)
        except OutOfMemory:
            raise  # the others would not fare better
        except StudioError as error:
            image = error
        task.is_tiled = self.model.num_tiled_calls > num_tiled_calls
        if task.window and task.source_image and task.mask and isinstance(image, Image.Image):
            image = canvas.composite_window(task.source_image, image, task.mask, task.window)
        return image, seconds + time.perf_counter() - start_time

    def _run_hires_pass(
        self, task: ImageTask, latents: torch.Tensor | None, on_call: Callable[[], Any]
    ) -> Image.Image:
        """Run the second pass over the first one's latents or, without them, the source image.

        Raises StudioError.
        """
        request = task.request
        size = geometry.upscale_size(request.size, request.hires_scale)
        hires_request = request.model_copy(
            update={
                "width": size[0],
                "height": size[1],
                "steps": request.hires_steps or request.steps,
            }
        )
        if request.hires_resize == "latent":
            if latents is None:
                assert task.source_image
                latents = _encode_image(self.model, task.source_image, request.seed)
            latent_size = self.model.latent_shape(*size)[2:]
            latents = torch.nn.functional.interpolate(latents, latent_size, mode="bilinear")
            init_image = InitImage(request.hires_strength, latents=latents)
            return self._denoise_hires(task, hires_request, init_image, on_call)
        image = task.source_image
        if latents is not None:
            image = decode_latents(self.model, latents, request.size)
        assert image
        if request.active_upscaler:
            assert self._enlarge
            image = self._enlarge(image, request.active_upscaler, size)
        else:
            image = image.resize(size, canvas.LANCZOS)
        tiles = []
        boxes = rules.plan_hires_tiles(request, request.size)
        task.enlarged_image = image if len(boxes) > 1 else None
        for index, box in enumerate(boxes):
            left, top, right, bottom = box
            tile_request = hires_request.model_copy(
                update={
                    "width": right - left,
                    "height": bottom - top,
                    "seed": (request.seed + index) % SEED_LIMIT,
                    "variation_seed": (request.variation_seed + index) % SEED_LIMIT,
                }
            )
            init_image = InitImage(request.hires_strength, image_to_tensor(image.crop(box)))
            tiles.append((box, self._denoise_hires(task, tile_request, init_image, on_call)))
        return canvas.blend_tiles(size, tiles)

    def _denoise_hires(
        self,
        task: ImageTask,
        request: ResolvedRequest,
        init_image: InitImage,
        on_call: Callable[[], Any],
    ) -> Image.Image:
        conditioning = task.conditioning.hires
        assert conditioning
        task.hires_trajectory = Trajectory(self.model, request, conditioning, init_image)
        ((_, latents, _),) = self._hires_batcher.denoise([task.hires_trajectory], on_call)
        if isinstance(latents, StudioError):
            raise latents
        return decode_latents(self.model, latents, request.size)


def render_preview(model: LoadedModel, tasks: Iterable[ImageTask]) -> bytes | None:
    """Render a preview of the images that are being made.

    Args:
        model: Their model.
        tasks: Of those in the first pass all are shown, of those in the second only the first.

    Returns:
        A JPEG file; None before the first prediction.
    """
    tasks = list(tasks)
    hires_tasks = [task for task in tasks if task.hires_trajectory]
    estimates = []
    for task in hires_tasks[:1] or tasks:
        latents = task.estimate_x0()
        if latents is not None:
            estimates.append(latents)
    return latent_preview.render_jpeg(model, estimates) if estimates else None


def render_unfinished(model: LoadedModel, task: ImageTask) -> Image.Image | None:
    """Decode what an image has come to before its last step.

    Returns:
        The image that the last prediction leads to; of a second pass in tiles what they are painted
        over. None before the first prediction.

    Raises:
        StudioError: It came to no numbers, or memory does not suffice.
    """
    image = task.enlarged_image
    for trajectory in (task.hires_trajectory, task.trajectory):
        latents = trajectory.estimate_x0() if trajectory else None
        if image is None and trajectory and latents is not None:
            latents = latents.to(model.latent_dtype)
            image = decode_latents(model, latents, trajectory.request.size)
    if image and task.window and task.source_image and task.mask:
        image = canvas.composite_window(task.source_image, image, task.mask, task.window)
    return image


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """Return an image as diffusers' pixels (1, 3, height, width) in -1 … 1."""
    return torch.as_tensor(VaeImageProcessor(do_resize=False).preprocess(image))


@torch.inference_mode()
def decode_latents(model: LoadedModel, latents: torch.Tensor, size: Size) -> Image.Image:
    """Decode the latents (1, channels, rows, columns) of one image.

    Args:
        model: The model they were made with.
        latents: Of the image, and of the margin that the model's family may need.
        size: The image's width and height in pixels.

    Raises:
        StudioError: The autoencoder came to no numbers.
    """
    processor = VaeImageProcessor(vae_scale_factor=model.vae_scale_factor)
    pixels = model.decode(latents)
    if not bool(torch.isfinite(pixels).all()):
        raise StudioError(
            f"The autoencoder of {model.info.name} gave invalid numbers, so the image would be "
            "black. Choose another VAE, or --precision float32."
        )
    image: Image.Image = processor.postprocess(pixels, output_type="pil")[0]
    return image if image.size == size else image.crop((0, 0, *size))


@torch.inference_mode()
def _encode_image(model: LoadedModel, image: Image.Image, seed: int) -> torch.Tensor:
    return model.encode(image_to_tensor(image), torch.Generator().manual_seed(seed))
