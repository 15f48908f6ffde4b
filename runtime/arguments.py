"""What stands on the command line: options of the program itself, and overrides for the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.contracts.errors import did_you_mean
from runtime.problems import CompositionError, Problem

_FLAGS = {"-h": "--help", "--help": "--help", "--version": "--version"}
_CONFIG_DIR = ("--config-dir", "-cd")
_SWEEP = ("-m", "--multirun")
_ALLOWED = "--config-dir DIR, --help, --version, and overrides such as slo.latency_ms=300"


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line, taken apart. ``config_dir`` exists."""

    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None
    help: bool = False
    version: bool = False


def parse_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> Arguments:
    """Take ``argv`` (without the program's name) apart. Raises CompositionError with every wrong option."""
    problems: list[Problem] = []
    overrides: list[str] = []
    flags: set[str] = set()
    config_dir = environ.get("SELFRIGHT_CONFIG_DIR") or None
    named_by = "SELFRIGHT_CONFIG_DIR"
    rest = iter(argv)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option in _CONFIG_DIR:
            config_dir, named_by = (value if equals else next(rest, "")), "--config-dir"
            if not config_dir:
                problems.append(Problem(("--config-dir",), "no folder is given", "--config-dir DIR"))
        elif argument in _FLAGS:
            flags.add(_FLAGS[argument])
        elif argument in _SWEEP:
            problems.append(
                Problem((argument,), "sweeps over several values are not part of this version", hint="run one by one")
            )
        elif argument.startswith("-"):
            near = did_you_mean(option, (*_FLAGS, *_CONFIG_DIR, *_SWEEP))
            problems.append(Problem((option,), f"unknown option{near}", _ALLOWED))
        else:
            overrides.append(argument)
    folder = Path(config_dir).expanduser() if config_dir else None
    if folder and not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        problems.append(Problem((named_by,), f"{config_dir!r} {what}", "a folder with groups, such as DIR/deployment/"))
    if problems:
        raise CompositionError(problems)
    return Arguments(tuple(overrides), folder, "--help" in flags, "--version" in flags)
