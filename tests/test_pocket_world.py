"""The small world keeps its promises: same scene, same picture; thing and ground differ; captions say what can be seen; nothing held out is trained on."""

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from studio.pocket.captions import caption, full, read
from studio.pocket.data import SETS, scene_of
from studio.pocket.datasets import PICTURES, scenes_of
from studio.pocket.palette import CONTRAST, lightness
from studio.pocket.styles import SIZE, SUPER, mask
from studio.pocket.world import draw, held_out, parts_of, sample


def test_same_scene_same_picture_and_other_seed_other_picture() -> None:
    one = draw(sample(5))
    assert one.shape == (SIZE, SIZE, 3) and one.dtype == np.uint8
    assert np.array_equal(one, draw(sample(5)))
    combination = sample(5).combination
    others = [draw(sample(seed, combination)) for seed in range(100, 120)]
    assert all((a != b).any() for i, a in enumerate(others) for b in others[:i])


def contrast(seed: int) -> float:
    """The difference in L* between the middle of a thing and a ring of ground around it, read off the drawn pixels."""
    scene = sample(seed)
    light = lightness(draw(scene))
    cover = mask(parts_of(scene)[1], SUPER * SIZE, SUPER) > 0.5
    inner, far = (10, 16) if scene.style == "cartoon" else (4, 10)
    ring = binary_dilation(cover, iterations=far) & ~binary_dilation(cover, iterations=inner)
    return float(
        abs(np.median(light[binary_erosion(cover, iterations=2)]) - np.median(light[ring]))
    )


def test_thing_and_ground_differ_in_lightness() -> None:
    found = np.array([contrast(seed) for seed in range(70_000, 70_200)])
    # the median is over the whole thing, doors and tummies too, and after the style: a few watercolours at night fall a little short
    assert (found >= CONTRAST).mean() >= 0.98 and found.min() > 0.7 * CONTRAST


def test_captions_name_only_what_is_seen() -> None:
    rng = np.random.default_rng(0)
    for seed in range(600):
        scene = sample(seed)
        assert read(full(scene)) == scene.combination
        said = read(caption(scene, rng))
        assert all(word in ("", meant) for word, meant in zip(said, scene.combination, strict=True))


def test_nothing_held_out_is_trained_on() -> None:
    without = held_out()
    assert len(without) == 512 and without == held_out()
    for index in range(0, SETS["train"][1], 40):
        scene = scene_of("train", index, without)
        assert scene.combination not in without and not scene.concept


def test_demo_sets_show_their_concept_in_every_place() -> None:
    for concept, (count, _) in PICTURES.items():
        told = scenes_of(concept)
        assert (
            len(told) == count
            and len({scene.place for scene in told}) == 8
            and {scene.concept for scene in told} == {concept}
        )
        assert len({draw(scene).tobytes() for scene in told}) == count
