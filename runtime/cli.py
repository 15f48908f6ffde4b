"""The command ``run``, also called ``selfright``: compose, then hand over to the chosen mode.

Exit codes: 0 it ran to its end, 1 an unexpected failure, 2 a configuration that cannot be used.
What only one mode needs is imported when that mode is chosen: ``mode=check`` stays under a second.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from modules.contracts.errors import ConfigurationError, SelfrightError
from runtime.arguments import Arguments, parse_arguments

_OK, _FAILED, _UNUSABLE = 0, 1, 2

_HELP = """\
run keeps services upright: it starts and watches them, repairs what fails, and counts the error budget.

usage: run [GROUP=OPTION ...] [KEY=VALUE ...] [--config-dir DIR]

  run                                         the demo deployment, watched but not repaired
  run selfhealing=v2 slo.latency_ms=1000      the same, with repair; +selfhealing=v2 means the same
  run deployment=shop --config-dir conf       your own services, from conf/deployment/shop.yaml
  run selfhealing=v2 mode=check               validate only: what would run, or every problem at once
  run mode=export export.what=prometheus-rules export.path=rules.yml
                                              alert and recording rules of the objectives

groups and their options
{groups}

often used keys
  mode             serve, check, export
  export.what      prometheus-rules, grafana, openslo, schema; export.path=FILE, or standard output
  backend          auto, on, off
  slo.latency_ms   a check slower than this is not good
  services.NAME    probe, process, depends_on, repair, slo
  server.port      admin API, dashboard and /metrics; 8420
  ~services.NAME   leaves a service out

options
  -cd, --config-dir DIR   a folder with groups of your own, found before the built-in ones (SELFRIGHT_CONFIG_DIR)
  -h, --help              this text
  --version               the version

environment
  APP_ENV=prod            the same as env=prod
  SELFRIGHT_DEBUG=1       tracebacks
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except ConfigurationError as error:
        return _fail(str(error), _UNUSABLE)
    except SelfrightError as error:
        return _fail(str(error), _FAILED)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the last stop: a person gets a line, not a traceback
        hint = "set SELFRIGHT_DEBUG=1 for the traceback"
        return _fail(f"unexpected {type(error).__name__}: {error}; {hint}", _FAILED)


def _run(argv: Sequence[str]) -> int:
    arguments = parse_arguments(argv, os.environ)
    if arguments.help:
        return _help(arguments)
    if arguments.version:
        from runtime.view import program_version  # noqa: PLC0415  each run pays for what it uses

        sys.stdout.write(f"selfright {program_version()}\n")
        return _OK
    from runtime.compose import compose  # noqa: PLC0415  each run pays for what it uses

    composed = compose(arguments)
    if composed.settings.mode == "check":
        from runtime.modes.check import check  # noqa: PLC0415  each run pays for what it uses

        return check(composed)
    if composed.settings.mode == "export":
        from runtime.modes.export import export  # noqa: PLC0415  each run pays for what it uses

        return export(composed)
    from runtime.modes.serve import serve  # noqa: PLC0415  each run pays for what it uses

    return serve(composed)


def _help(arguments: Arguments) -> int:
    from runtime.loader import Loader  # noqa: PLC0415  each run pays for what it uses

    groups = Loader(arguments.config_dir).groups
    lines = [f"  {group:<16} {', '.join(options)}" for group, options in sorted(groups.items())]
    sys.stdout.write(_HELP.format(groups="\n".join(lines)))
    return _OK


def _fail(message: str, code: int) -> int:
    if os.environ.get("SELFRIGHT_DEBUG") == "1":
        traceback.print_exc()
    sys.stderr.write(f"run: {message}\n" if code == _FAILED else f"{message}\n")
    return code
