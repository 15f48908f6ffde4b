"""The API's page at /docs, from assets on this machine alone.

The framework's own page loads Swagger UI from a CDN; the assets here come with the ``fastapi-offline``
distribution, and the page is ours, so that no inline script is needed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from modules.contracts.errors import ConfigurationError

_STATIC = Path(__file__).parent / "static"


def install(app: FastAPI) -> None:
    """Add /docs and what it loads. Raises ConfigurationError when the assets are not installed."""
    app.mount("/docs/assets", StaticFiles(directory=_assets()))
    app.mount("/static", StaticFiles(directory=_STATIC))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_STATIC / "docs.html")


def _assets() -> Path:
    spec = find_spec("fastapi_offline")  # located, not imported: only its files are wanted
    folder = Path(spec.origin).parent / "static" if spec and spec.origin else None
    if folder is None or not (folder / "swagger-ui-bundle.js").is_file():
        raise ConfigurationError(
            "the page /docs needs the assets of the package fastapi-offline, which is not installed whole;"
            " reinstall it: pip install --force-reinstall fastapi-offline"
        )
    return folder
