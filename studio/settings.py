"""Settings of this installation: where the home is, which device computes, who may connect.

Knows: the order defaults < studio.toml in the home < STUDIO_* variables < flags, and where the
shipped files lie. Does not know: what an image needs (core/), what a device can do
(engine/models/devices.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from studio.core.toml_text import load_toml
from studio.errors import BadFile, InvalidSpec, quote

HERE = Path(__file__).resolve().parent
ENVIRONMENT_PREFIX = "STUDIO_"


def shipped(folder: Literal["assets", "presets"]) -> Path:
    """Return a folder that came with the studio.

    It lies inside the package in a wheel, beside it in a checkout.
    """
    packaged = HERE / folder
    return packaged if packaged.is_dir() else HERE.parent / folder


class Settings(BaseSettings):
    """Settings that are the same for every request."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

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
    guest_jobs: int = Field(
        8, ge=1, le=10_000, description="Jobs of one guest that run or wait at a time."
    )
    all_guests_jobs: int = Field(
        24, ge=1, le=10_000, description="The same for all guests together."
    )
    guest_megapixels: float = Field(
        24, gt=0, le=64, description="Million pixels of a picture that a guest may send."
    )
    guest_upload_mb: int = Field(
        200, ge=1, le=1_000_000, description="MiB of files that one guest may have here at a time."
    )
    all_guests_upload_mb: int = Field(
        1000, ge=1, le=1_000_000, description="The same for all guests together."
    )
    guest_requests_per_second: float = Field(
        10, ge=5, le=10_000, description="Requests a second of one guest, on average."
    )
    guest_sessions: int = Field(
        8, ge=1, le=1000, description="Pages that one guest has open at a time."
    )
    guest_events: int = Field(
        8, ge=1, le=1000, description="Buttons of one guest that are being answered at a time."
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
    def guest_pixels(self) -> int:
        """Pixels of an image that a guest may send."""
        return round(self.guest_megapixels * 1e6)

    @property
    def outputs(self) -> Path:
        """Generated images.

        The page serves this folder, `thumbs`, `inputs`, `sweeps`, `runs` and `loras`, and no other.
        """
        return self.home / "outputs"

    @property
    def thumbs(self) -> Path:
        """Small versions of the generated images."""
        return self.home / "thumbs"

    @property
    def inputs(self) -> Path:
        """Images and masks to work on, by their sha256."""
        return self.home / "inputs"

    @property
    def uploads(self) -> Path:
        """What browsers have sent, until it is used; and what the page hands out for once."""
        return self.home / "uploads"

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
        """Checkpoints, a folder for each."""
        return self.home / "models"

    @property
    def loras(self) -> Path:
        """LoRA files."""
        return self.home / "loras"

    @property
    def presets(self) -> Path:
        """The user's presets, a folder for each kind."""
        return self.home / "presets"


def load(**flags: Any) -> Settings:
    """Return the settings from all their sources, and create the home's folders.

    Args:
        flags: Settings that were given on the command line; None stands for one that was not.

    Raises:
        InvalidSpec: A bad value.
        BadFile: A studio.toml that cannot be read, or a home that cannot be created.
    """
    overrides = {name: value for name, value in flags.items() if value is not None}
    home_text = overrides.get("home") or os.environ.get("STUDIO_HOME") or "~/studio-home"
    home = Path(home_text).expanduser().resolve()
    values = {**_read_settings_file(home / "studio.toml"), **overrides, "home": home}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise InvalidSpec([_format_fault(dict(fault)) for fault in error.errors()]) from None
    _create_folders(settings)
    return settings


def _read_settings_file(path: Path) -> dict[str, Any]:
    """Return the values of a studio.toml but for those that an environment variable sets."""
    try:
        values = load_toml(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} cannot be read: {error}. Mend it or move it away.") from None
    for variable in os.environ:
        if variable.startswith(ENVIRONMENT_PREFIX):
            values.pop(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), None)
    return values


def _format_fault(fault: dict[str, Any]) -> str:
    name = ".".join(map(str, fault["loc"]))
    return f"Setting {name}: {fault['msg']} (not {quote(fault['input'])})."


def _create_folders(settings: Settings) -> None:
    folders = (
        settings.home,
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
    )
    try:
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(
            f"The home folder {settings.home} cannot be made: {error.strerror}. Choose another "
            "with --home."
        ) from None
