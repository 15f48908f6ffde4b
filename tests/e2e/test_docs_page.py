"""The documentation page in a real browser, which can reach nothing but this machine."""

import os
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
    "--window-size=1200,1600",
]


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sentence = f"none of {', '.join(BROWSERS)} is on PATH; install one (Debian: apt-get install chromium)"
        if os.environ.get("SELFRIGHT_BROWSER_TESTS") == "1":
            pytest.fail(sentence)
        pytest.skip(f"{sentence}, or set SELFRIGHT_BROWSER_TESTS=1 to insist")
    return found


@pytest.fixture
def browse(browser, tmp_path):
    """Open a page and return its document after its scripts have run, and what the console said."""

    def open_page(url):
        command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return open_page


def test_the_documentation_shows_every_route_without_a_network(start, browse):
    program = start().ready()
    document, console = browse(f"{program.url}/docs")
    for path in program.get("/openapi.json")["paths"]:
        assert f'data-path="{path}"' in document, path
    assert "Selfright admin API" in document
    assert console == [], "the page's own rules (Content-Security-Policy) let everything load"
