"""Dotted names: allowed packages only, async callables only, and a user's own errors in their own words."""

from __future__ import annotations

import sys

import pytest

from modules.contracts.errors import ConfigurationError
from runtime.extensions import Extensions

CHECKS = """
import functools

async def stock(limit=3):
    return limit

def plain():
    return True

class Checker:
    async def __call__(self):
        return True

checker = Checker()
partial = functools.partial(stock, limit=5)
number = 3
"""


@pytest.fixture
def shop_package(write):
    write("shop/__init__.py", "")
    write("shop/checks.py", CHECKS)
    write("shop/broken.py", "raise ValueError('no database')")
    write("shop/leaving.py", "raise SystemExit(3)")


@pytest.mark.usefixtures("shop_package")
async def test_an_async_function_of_an_allowed_package_in_the_working_directory_is_loaded():
    assert await Extensions(["shop"]).load("shop.checks.stock")() == 3
    assert await Extensions(["shop.checks"]).load("shop.checks.stock")() == 3


@pytest.mark.usefixtures("shop_package")
async def test_an_object_with_an_async_call_and_a_partial_are_async_callables_too():
    assert await Extensions(["shop"]).load("shop.checks.checker")() is True
    assert await Extensions(["shop"]).load("shop.checks.partial")() == 5


@pytest.mark.parametrize(
    ("allowed", "name", "parts"),
    [
        ([], "os.system", ["allowed are none", "add 'os' to extensions"]),
        (["shop"], "shopping.checks.stock", ["allowed are shop"]),
        (["shop.other"], "shop.checks.stock", ["allowed are shop.other"]),
        (["shop"], "shop.checks.stok", ["has no 'stok' (did you mean 'stock'?)"]),
        (["shop"], "shop.checks.plain", ["is a plain function", "async def plain"]),
        (["shop"], "shop.checks.Checker", ["is a class"]),
        (["shop"], "shop.checks.number", ["is a int"]),
        (["shop"], "shop.gone.stock", ["cannot be imported", "No module named 'shop.gone'"]),
        (["shop"], "shop.broken.stock", ["cannot be imported: ValueError: no database"]),
        (["shop"], "shop.leaving.stock", ["cannot be imported: SystemExit: 3"]),
    ],
)
@pytest.mark.usefixtures("shop_package")
def test_anything_else_is_refused_with_the_reason(allowed, name, parts):
    with pytest.raises(ConfigurationError) as caught:
        Extensions(allowed).load(name)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.usefixtures("shop_package")
def test_a_package_that_is_not_allowed_is_not_even_imported():
    with pytest.raises(ConfigurationError):
        Extensions(["other"]).load("shop.checks.stock")
    assert "shop" not in sys.modules


@pytest.mark.usefixtures("here")
def test_the_working_directory_cannot_stand_in_for_a_library(write):
    sys.modules.pop("wsgiref.util", None)
    sys.modules.pop("wsgiref", None)
    write("wsgiref/__init__.py", "raise RuntimeError('not this one')")
    with pytest.raises(ConfigurationError, match="plain function"):
        Extensions(["wsgiref"]).load("wsgiref.util.guess_scheme")


@pytest.mark.usefixtures("shop_package")
def test_check_imports_what_a_configuration_names(run, shop, monkeypatch):
    # Callable probes are the backend's; whether that is there is another test's question.
    monkeypatch.setattr("runtime.consistency._backend", lambda settings: iter(()))
    arguments = shop("services: {a: {probe: {kind: callable, target: shop.broken.stock}}}\nextensions: [shop]\n")
    outcome = run(*arguments)
    assert outcome.code == 2
    assert "services.a.probe.target: module 'shop.broken' cannot be imported: ValueError: no database" in outcome.err
    arguments = shop("services: {a: {probe: {kind: callable, target: shop.checks.stock}}}\nextensions: [shop]\n")
    assert run(*arguments).code == 0
