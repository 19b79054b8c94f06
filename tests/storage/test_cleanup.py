"""What nobody refers to goes after a day, and nothing else, whenever the studio dies meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from PIL import Image

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import SweepSpec
from studio.errors import BadPicture
from studio.settings import load
from studio.storage import inputs as kept
from studio.storage.cleanup import delete_unreferenced_inputs
from studio.storage.home import Home as StudioHome
from studio.storage.presets import Presets
from support.examples import examples
from support.served import Served

DAY = kept.RETENTION_SECONDS
STEPS = [{"field": "steps", "values": "5, 9"}]


class Home(StudioHome):
    """A home and all that may refer to a picture in it."""

    def bring(self, seed: int, by: str | None = None) -> str:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return self.inputs.add(Image.fromarray(pixels), guest_id=by).sha256

    def age(self, name: str, seconds: float) -> None:
        for path in self.settings.inputs.glob(f"{name}.*"):
            os.utime(path, (time.time() - seconds,) * 2)

    def there(self) -> set[str]:
        return {path.stem for path in self.settings.inputs.glob("*.png")}

    def refer(self, how: str, name: str) -> None:
        """Something refers to a picture in that way."""
        request: dict[str, Any] = {"prompt": "a boat", "image": name}
        other = "0" * 64
        match how:
            case "a job" | "an ended job" | "another's job":
                id = self.jobs.submit(
                    "generate", request, owner="bob" if how == "another's job" else "ann"
                )
                if how == "an ended job":
                    self.jobs.cancel(id)
            case "a mask":
                self.jobs.submit(
                    "denoise_strip",
                    {"request": {"image": other, "mask": name}, "every": 3},
                    owner="ann",
                )
            case "a search":
                self.jobs.submit("clip_search", {"dataset": "moon", "picture": name}, owner="ann")
            case "a sweep":
                self.sweeps.save(
                    validate(SweepSpec, {"base": request | {"seed": 1}, "axes": STEPS}), "ann"
                )
            case "an axis" | "an axis as text":
                values: Any = f"{other}, {name}" if how == "an axis as text" else [other, name]
                axis = {"field": "image", "values": values}
                self.sweeps.save(
                    validate(SweepSpec, {"base": {"seed": 1, "image": other}, "axes": [axis]}),
                    "ann",
                )
            case "a picture" | "an unlisted picture":
                made = self.gallery.save(
                    Image.new("RGB", (8, 8)),
                    validate(ResolvedRequest, request | {"seed": 5, "width": 64, "height": 64}),
                    digest="d" * 64,
                    content_hashes={},
                    seconds=1.0,
                    owner="ann",
                )
                if how == "an unlisted picture":
                    self.gallery._database.execute(
                        "DELETE FROM images WHERE path = ?", str(made.path)
                    )
            case "a preset":
                own = self.settings.presets / "pictures"
                Presets(GenerationRequest, own, own).save(
                    f"on {name[:8]}", validate(GenerationRequest, request)
                )


REFERRING = (
    "a job",
    "an ended job",
    "another's job",
    "a mask",
    "a search",
    "a sweep",
    "an axis",
    "an axis as text",
    "a picture",
    "an unlisted picture",
    "a preset",
)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[[], Home]]:
    """`at()` makes a fresh home."""
    made: list[Home] = []

    def at() -> Home:
        settings = load(home=tmp_path / f"home{len(made)}", device="cpu")
        made.append(Home(settings))
        return made[-1]

    yield at
    for home in made:
        home.close()


@pytest.mark.parametrize("how", REFERRING)
def test_what_is_referred_to_stays(at: Callable[[], Home], how: str) -> None:
    home = at()
    names = [home.bring(seed) for seed in (1, 2)]
    home.refer(how, names[0])
    for name in names:
        home.age(name, 400 * DAY)
    assert delete_unreferenced_inputs(home) == 1
    assert home.there() == {names[0]}


@trying(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    pictures=st.lists(
        st.tuples(
            st.lists(st.sampled_from(REFERRING), max_size=2),
            st.sampled_from([0.0, 0.9, 1.1, 500.0]),
            st.sampled_from([None, "ann", "api-1"]),
        ),
        max_size=8,
    ),
    dies=st.integers(0, 6),
)
def test_only_what_is_old_and_in_no_use_goes_whenever_it_dies(
    at: Callable[[], Home], pictures: list[Any], dies: int
) -> None:
    home = at()
    stay = set()
    for seed, (ways, days, by) in enumerate(pictures):
        name = home.bring(seed, by)
        home.age(name, days * DAY)
        for how in ways:
            home.refer(how, name)
        stay |= {name} if ways or days < 1 else set()
    real, left = Path.unlink, [dies]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent == home.settings.inputs and not left[0]:
            raise KeyboardInterrupt
        left[0] -= path.parent == home.settings.inputs
        real(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        try:
            delete_unreferenced_inputs(home)
        except KeyboardInterrupt:
            assert home.there() >= stay
    delete_unreferenced_inputs(home)
    assert home.there() == stay
    assert {
        path.name.split(".")[0] for path in home.settings.inputs.iterdir()
    } == stay  # nor marks of what is gone
    assert delete_unreferenced_inputs(home) == 0


def test_what_is_brought_again_meanwhile_stays(at: Callable[[], Home]) -> None:
    home = at()
    name = home.bring(1, "ann")
    home.age(name, 9 * DAY)

    def texts() -> Iterator[str]:
        home.bring(1)
        yield "nothing"

    assert home.inputs.find_unreferenced(texts()) == []
    assert home.there() == {name}
    home.age(name, 9 * DAY)
    assert home.inputs.delete(home.inputs.find_unreferenced(iter(()))) == 1
    with pytest.raises(BadPicture):
        home.inputs.get_path(name)
    assert home.bring(1) == name
    assert not home.inputs.find_unreferenced(iter(()))  # it begins anew


def test_if_anything_cannot_be_read_nothing_goes(
    at: Callable[[], Home], caplog: pytest.LogCaptureFixture
) -> None:
    home = at()
    name = home.bring(1)
    home.age(name, 9 * DAY)
    (home.settings.presets / "pictures" / "odd.toml").mkdir()
    assert delete_unreferenced_inputs(home) == 0
    assert home.there() == {name}
    assert "was thrown away" in caplog.text


def test_after_a_table_was_damaged_nothing_goes(at: Callable[[], Home]) -> None:
    """What referred to the picture may be among the rows that were lost."""
    home = at()
    name = home.bring(1)
    home.refer("a job", name)
    home.age(name, 9 * DAY)
    home.close()
    (home.settings.home / "jobs.sqlite").write_bytes(b"no table" * 600)
    assert delete_unreferenced_inputs(home) == 0
    assert home.there() == {name}


def test_other_files_are_left_alone(at: Callable[[], Home]) -> None:
    home = at()
    for name in ("mine.png", "a" * 63 + ".png", "a" * 64, ".hidden", "A" * 64 + ".png"):
        (home.settings.inputs / name).write_bytes(b"x")
        os.utime(home.settings.inputs / name, (1, 1))
    before = sorted(home.settings.inputs.iterdir())
    assert delete_unreferenced_inputs(home) == 0
    assert sorted(home.settings.inputs.iterdir()) == before


def test_a_damaged_picture_is_whole_again_when_it_is_sent_again(at: Callable[[], Home]) -> None:
    home = at()
    name = home.bring(1)
    home.inputs.get_path(name).write_bytes(b"x")
    assert home.bring(1) == name
    assert home.inputs.load(name).size == (8, 8)


@pytest.mark.slow
def test_a_studio_tidies_when_it_opens(
    at: Callable[[], Home], open_studio: Callable[..., Served]
) -> None:
    home = at()
    names = [home.bring(seed) for seed in (1, 2, 3)]
    home.refer("a picture", names[0])
    for name in names[:2]:
        home.age(name, 2 * DAY)
    studio = open_studio(home.settings.home)
    end = time.monotonic() + 30
    while home.there() != {names[0], names[2]}:
        assert time.monotonic() < end, studio.log.read_text()
        time.sleep(0.1)
    assert "Traceback" not in studio.log.read_text()
