"""Everything that touches Hydra's loader, the private parts included, behind four plain questions.

Hydra's public ``compose`` has no search path of one's own and does not say which file a value came from. So its
loader is used directly, pinned by the version range in pyproject.toml. No folder is made, no logging is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

_PRIMARY = "config"
OWN_FOLDER = Path(__file__).resolve().parent.parent / "conf"
"""The program's own groups. By path and not by name: a ``conf`` of the user's may be importable too."""
LARGEST_FILE = 1 << 20
"""Bytes of a configuration file; a larger one is no configuration."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One file's part of the composed configuration: its keys unresolved, and which keys it stands under."""

    file: Path
    package: tuple[str, ...]
    content: DictConfig


@dataclass(frozen=True, slots=True)
class Composition:
    """A composed configuration, unresolved and without Hydra's own keys; ``choices`` is group -> option."""

    config: DictConfig
    choices: Mapping[str, str]


class Loader:
    """Groups and options from the ``conf`` package and, before it, from a folder of the user's own."""

    def __init__(self, directory: Path | None = None) -> None:
        version.setbase("1.3")
        JobRuntime.instance().set("name", "selfright")
        search_path = create_config_search_path(f"file://{OWN_FOLDER}")
        if directory:
            search_path.prepend(provider="--config-dir", path=f"file://{directory.resolve()}")
        self.directory = directory
        self._loader = ConfigLoaderImpl(search_path)
        repository = self._loader.repository
        self.groups: dict[str, tuple[str, ...]] = {
            group: tuple(options)
            for group in repository.get_group_options("", ObjectType.GROUP)
            if group != "hydra" and (options := repository.get_group_options(group, ObjectType.CONFIG))
        }

    def files(self) -> list[Path]:
        """Return the configuration files of the user's own folder."""
        return [] if self.directory is None else [file for file in self.directory.rglob("*.yaml") if file.is_file()]

    def too_large(self) -> list[Path]:
        """Return those that are larger than any configuration."""
        return [file for file in self.files() if file.stat().st_size > LARGEST_FILE]

    def parse(self, text: str) -> Override:
        """Parse one override. Raises OverrideParseException."""
        return OverridesParser.create().parse_override(text)

    def compose(self, overrides: Sequence[str]) -> Composition:
        """Compose. Raises HydraException, YAMLError, OmegaConfBaseException, ValueError, OSError."""
        config = self._loader.load_configuration(_PRIMARY, list(overrides), RunMode.RUN)
        chosen = config.hydra.runtime.choices
        choices = {str(group): str(chosen[group]) for group in chosen if not str(group).startswith("hydra/")}
        OmegaConf.set_struct(config, False)
        with open_dict(config):
            del config["hydra"]
        return Composition(config, choices)

    def layers(self, overrides: Sequence[str]) -> list[Layer]:
        """Return the files of a configuration that composes, in the order in which they were merged."""
        defaults = self._loader.compute_defaults_list(_PRIMARY, list(overrides), RunMode.RUN).defaults
        return [
            self._layer(default)
            for default in defaults
            if default.config_path and not default.config_path.startswith("hydra/")
        ]

    def _layer(self, default: ResultDefault) -> Layer:
        """The one use of Hydra's private ``_load_single_config``: a file's keys under its package."""
        result = self._loader._load_single_config(default, self._loader.repository)
        content = cast(DictConfig, result.config)  # Hydra refuses a file that is a list
        package = default.package if default.package is not None else result.header.get("package")
        parts = tuple(package.split(".")) if package and package != "_global_" else ()
        return Layer(_file(result.path, str(default.config_path)), parts, content)


def _file(source: str, config_path: str) -> Path:
    return Path(source.rpartition("://")[2]) / f"{config_path}.yaml"


def to_path(key: str) -> tuple[str, ...]:
    """Take an override's dotted key apart: ``services[a].x`` and ``services.a.x`` are the same."""
    return tuple(part for part in key.replace("[", ".").replace("]", "").split(".") if part)
