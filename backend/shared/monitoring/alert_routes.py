"""Which targets hear of an alert: the first route that matches it decides, as in Alertmanager's tree of one level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from backend.shared.monitoring.alert_settings import RouteSettings


def matches(labels: Mapping[str, str], patterns: Mapping[str, str]) -> bool:
    """Whether every pattern (``shop-*``) matches the label of its name. A label that is missing is empty."""
    return all(fnmatchcase(labels.get(name, ""), pattern) for name, pattern in patterns.items())


class Routes:
    """Routes over ``targets``, by name. What no route matches goes to all of them."""

    def __init__(self, routes: Sequence[RouteSettings], targets: Sequence[str]) -> None:
        self._routes = tuple(routes)
        self._targets = tuple(targets)

    def targets(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Return the targets of an alert, in the order of their configuration."""
        route = next((route for route in self._routes if _takes(route, labels)), None)
        return self._targets if route is None else tuple(name for name in self._targets if name in route.targets)


def _takes(route: RouteSettings, labels: Mapping[str, str]) -> bool:
    severe = not route.severity or labels.get("severity") in route.severity
    return severe and (not route.service or any(matches(labels, {"service": glob}) for glob in route.service))
