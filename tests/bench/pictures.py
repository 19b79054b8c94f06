"""Whether work on a picture does what it says, as the embedded judge sees it: 50 cases each of inpainting, outpainting, img2img.

The pictures are drawn, not painted, and of combinations that the model was never trained on, so the judge knows them for sure.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEPS, TOGETHER, MARGIN, EXTENDED = 20, 8, 6, 64
STRENGTHS = (0.3, 0.6, 0.9)


@dataclass(frozen=True)
class Case:
    """A drawn picture, the mask around its thing, and what the thing is to become."""

    scene: Any
    wanted: Any
    picture: Image.Image
    mask: Image.Image


def cases(count: int, first: int = 0) -> list[Case]:
    """Scenes by chance; a thing in the sky becomes another in the sky, one on the ground another on the ground."""
    from studio.pocket.objects import SKY_THINGS
    from studio.pocket.world import (
        COLOUR_NAMES,
        IMAGE_SIZE_PX,
        THING_NAMES,
        build_polygons,
        render_scene,
        sample_held_out,
        sample_scene,
    )

    unseen, rng = sorted(sample_held_out()), np.random.default_rng([41, first])
    found = []
    for k in range(first, first + count):
        scene = sample_scene(90_000 + k, unseen[k * 37 % len(unseen)])
        things = [
            name
            for name in THING_NAMES
            if name != scene.thing and (name in SKY_THINGS) == (scene.thing in SKY_THINGS)
        ]
        colours = [name for name in COLOUR_NAMES if name != scene.colour]
        wanted = replace(scene, thing=str(rng.choice(things)), colour=str(rng.choice(colours)))
        points = np.concatenate([part.points for part in build_polygons(scene)[1]]) * IMAGE_SIZE_PX
        low, high = points.min(0) - MARGIN, points.max(0) + MARGIN
        mask = Image.new("L", (IMAGE_SIZE_PX, IMAGE_SIZE_PX))
        mask.paste(
            255,
            tuple(
                int(v) for v in (*np.clip(low, 0, IMAGE_SIZE_PX), *np.clip(high, 0, IMAGE_SIZE_PX))
            ),
        )
        found.append(Case(scene, wanted, Image.fromarray(render_scene(scene)), mask))
    return found


class Side:
    """The studio on the embedded model, and its judge."""

    def __init__(self, home: Path, device: str = "cpu", steps: int = STEPS) -> None:
        from studio.engine.context import WorkerContext
        from studio.pocket.judge import Judge
        from studio.settings import load, shipped

        self.bench = WorkerContext.open(
            load(home=home, device=device, precision="float32", keep_free=0, preview_every=0)
        )
        self.steps, self.judge = steps, Judge.load(shipped("assets") / "pocket" / "judge")

    def painted(self, asked: Sequence[dict[str, Any]]) -> list[Image.Image]:
        """The pictures of many requests, several at once."""
        from studio.core.base import validate
        from studio.core.generation.request import GenerationRequest
        from studio.engine.generation.trajectory_runner import TrajectoryRunner, prepare_task
        from studio.engine.models.prompt_encoding import encode_prompts

        inputs = self.bench.home.library.inputs
        requests = [
            validate(GenerationRequest, {"steps": self.steps, "seed": k, **one})
            for k, one in enumerate(asked)
        ]
        with self.bench.pipelines.borrow(requests[0]) as parts:
            full = [inputs.resolve(request, parts.info.native_size, 0) for request in requests]
            each = [prepare_task(parts, one, encode_prompts(parts, one), inputs) for one in full]
            came = {one: image for one, image, _ in TrajectoryRunner(parts, TOGETHER).run(each)}
        for image in came.values():
            if not isinstance(image, Image.Image):
                raise image
        return [image for one in each if isinstance(image := came[one], Image.Image)]

    def seen(self, images: Sequence[Image.Image]) -> dict[str, list[str]]:
        """What the judge sees, by head."""
        from studio.pocket.data import to_tensor

        return self.judge.predict_labels(
            to_tensor(np.stack([np.asarray(image.convert("RGB")) for image in images]))
        )

    def inpainted(self, told: Sequence[Case]) -> tuple[dict[str, float], list[Image.Image]]:
        """Shares of pictures in which the thing, its colour and the place are as wanted after repainting the mask; the place, too,
        as the judge saw it before."""
        from studio.pocket.captions import format_full_caption

        inputs = self.bench.home.library.inputs
        images = self.painted(
            [
                {
                    "prompt": format_full_caption(case.wanted),
                    "image": inputs.add(case.picture).sha256,
                    "strength": 1.0,
                    "mask": inputs.add_mask(case.mask).sha256,
                }
                for case in told
            ]
        )
        return self._shares(
            images, [case.wanted for case in told], ("thing", "colour", "place", "style")
        ), images

    def outpainted(self, told: Sequence[Case]) -> tuple[dict[str, float], list[Image.Image]]:
        """Half as wide again on the right: shares of pictures whose right 128 pixels (half of them new) show the same place; and
        of those whose old part is bit for bit the same beyond the seam."""
        from studio.pocket.captions import format_full_caption

        inputs = self.bench.home.library.inputs
        images = self.painted(
            [
                {
                    "prompt": format_full_caption(case.scene),
                    "image": inputs.add(case.picture).sha256,
                    "strength": 1.0,
                    "extend_right": EXTENDED,
                }
                for case in told
            ]
        )
        shares = self._shares(
            [image.crop((EXTENDED, 0, 128 + EXTENDED, 128)) for image in images],
            [case.scene for case in told],
            ("place", "style"),
        )
        same = [
            np.array_equal(np.asarray(image)[:, :100], np.asarray(case.picture)[:, :100])
            for image, case in zip(images, told)
        ]
        return shares | {"untouched": float(np.mean(same))}, images

    def changed(self, told: Sequence[Case]) -> tuple[dict[str, float], list[Image.Image]]:
        """Mean difference to the picture (% of the whole range) at each strength, and the share of pictures in which it grows."""
        from studio.engine.metrics import compute_rms_difference
        from studio.pocket.captions import format_full_caption

        inputs = self.bench.home.library.inputs
        images = self.painted(
            [
                {
                    "prompt": format_full_caption(case.wanted),
                    "image": inputs.add(case.picture).sha256,
                    "strength": strength,
                    "seed": k,
                }
                for k, case in enumerate(told)
                for strength in STRENGTHS
            ]
        )
        apart = np.array(
            [
                compute_rms_difference(case.picture, image)
                for case, image in zip(
                    [case for case in told for _ in STRENGTHS], images, strict=True
                )
            ]
        ).reshape(-1, len(STRENGTHS))
        means = {
            f"strength {strength:g}": float(mean)
            for strength, mean in zip(STRENGTHS, apart.mean(0))
        }
        return means | {"grows": float(np.mean((np.diff(apart, axis=1) > 0).all(1)))}, images

    def _shares(
        self, images: list[Image.Image], meant: list[Any], heads: tuple[str, ...]
    ) -> dict[str, float]:
        said = self.seen(images)
        return {
            name: float(
                np.mean(
                    [a == getattr(scene, name) for a, scene in zip(said[name], meant, strict=True)]
                )
            )
            for name in heads
        }


def pictures(flags: argparse.Namespace) -> None:
    """Print the shares."""
    with tempfile.TemporaryDirectory() as place:
        side, told = Side(Path(place), flags.device), cases(50)
        print(f"pictures: {len(told)} cases each, {STEPS} steps, as the judge sees them")
        for name, work, goal in (
            ("inpainting", side.inpainted, "place ≥ 80 %"),
            ("outpainting", side.outpainted, "place ≥ 80 %"),
            ("img2img", side.changed, "more and more"),
        ):
            shares, _ = work(told)
            print(
                f"  {name:12s} "
                + "  ".join(
                    f"{head} {value:.1f} %"
                    if head.startswith("strength")
                    else f"{head} {value:.0%}"
                    for head, value in shares.items()
                )
                + f"  (goal: {goal})"
            )
