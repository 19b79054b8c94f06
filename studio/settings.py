"""Settings of this installation: where the home is, which device computes, who may connect.

Knows: the order defaults < studio.toml in the home < STUDIO_* variables < flags, and where the shipped files lie.
Does not know: what a picture needs (spec/), what a device can do (engine/models/devices.py).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from studio.errors import BadFile, InvalidSpec

HERE = Path(__file__).resolve().parent


def shipped(folder: Literal["assets", "presets"]) -> Path:
    """The folder of that name which came with the studio: inside the package in a wheel, beside it in a checkout."""
    inside = HERE / folder
    return inside if inside.is_dir() else HERE.parent / folder


class Settings(BaseSettings):
    """What is the same for every request."""

    model_config = SettingsConfigDict(env_prefix="STUDIO_", frozen=True, extra="forbid")

    home: Path = Field(
        Path("~/studio-home"),
        description="Folder with your models, pictures, presets and the queue.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    share: bool = Field(False, description="Make a public link for a friend; forces a login.")
    auth: str = Field("", description="USER:PASSWORD that visitors have to give.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|xpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:1, mps or xpu.",
    )
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Number format of the networks; auto takes what suits the device."
    )
    keep_free: float = Field(
        1.0, ge=0, le=1000, description="GiB of the device's memory to leave to others."
    )
    preview_every: int = Field(
        3, ge=0, le=100, description="Steps between live previews; 0 shows none."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @property
    def outputs(self) -> Path:
        """Pictures; the page serves this folder, `thumbs`, `inputs`, `sweeps`, `runs` and `loras`, and no other."""
        return self.home / "outputs"

    @property
    def thumbs(self) -> Path:
        return self.home / "thumbs"

    @property
    def inputs(self) -> Path:
        """Pictures and masks to work on, by their sha256."""
        return self.home / "inputs"

    @property
    def sweeps(self) -> Path:
        """Sheets and viewers, a folder for each sweep."""
        return self.home / "sweeps"

    @property
    def runs(self) -> Path:
        """Trainings, a folder for each: its settings, log, samples and checkpoints."""
        return self.home / "runs"

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def loras(self) -> Path:
        return self.home / "loras"

    @property
    def presets(self) -> Path:
        return self.home / "presets"


def load(**flags: Any) -> Settings:
    """Settings from all their sources, with the home's folders made. Flags that are None are not given.

    Raises InvalidSpec for a bad value and BadFile for a studio.toml that cannot be read.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    home = (
        Path(given.get("home") or os.environ.get("STUDIO_HOME") or "~/studio-home")
        .expanduser()
        .resolve()
    )
    file = home / "studio.toml"
    try:
        written = tomllib.loads(file.read_text("utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadFile(f"{file} cannot be read: {error}. Mend it or move it away.") from None
    from_environment = {
        name.removeprefix("STUDIO_").lower() for name in os.environ if name.startswith("STUDIO_")
    }
    below = {name: value for name, value in written.items() if name not in from_environment}
    try:
        settings = Settings(**{**below, **given, "home": home})
    except ValidationError as error:
        raise InvalidSpec(
            [
                f"Setting {'.'.join(map(str, fault['loc']))}: {fault['msg']} (not {fault['input']!r:.60})."
                for fault in error.errors()
            ]
        ) from None
    try:
        for folder in (
            home,
            settings.outputs,
            settings.thumbs,
            settings.inputs,
            settings.sweeps,
            settings.runs,
            settings.models,
            settings.loras,
            settings.presets / "pictures",
            settings.presets / "sweeps",
            settings.presets / "training",
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(
            f"The home folder {home} cannot be made: {error.strerror}. Choose another with --home."
        ) from None
    return settings
