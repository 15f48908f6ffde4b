"""What a user may try next, for the terminal view and for the first lines without one."""

from __future__ import annotations

from urllib.parse import urlsplit

from runtime.parts import Parts


def admin_address(parts: Parts) -> str:
    """Return the admin API's address as configured; with port 0 only the server itself knows the real one."""
    server = parts.settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"http://{host}:{server.port}"


def hints(parts: Parts, address: str) -> list[str]:
    """Say what to try next, a line each: the admin API at ``address``, and in the demo how to break a service."""
    lines = [f"admin API  {address}/docs", f"status     curl {address}/api/v1/status"]
    if parts.deployment == "demo" and (found := _breakable(parts)):
        name, url = found
        lines.append(f"break it   curl -X POST '{url}/_fault?kind=hang'  ({name})")
        lines.append("           or kind=error, latency, crash (-X DELETE ends it); or kill -9 it")
        if parts.settings.selfhealing.version == "none":
            lines.append("heal it    run +selfhealing=v2 repairs what breaks; so far it is only watched")
    lines.append("stop       Ctrl-C")
    return lines


def _breakable(parts: Parts) -> tuple[str, str] | None:
    """The service that most others need, of those with an http probe and a process, and its address."""
    services = parts.settings.services
    needed = [need for service in services.values() for need in service.depends_on]
    found: list[tuple[str, str]] = []
    for name, service in services.items():
        probe = service.liveness
        if probe.kind == "http" and service.process is not None:
            where = urlsplit(probe.url)
            found.append((name, f"{where.scheme}://{where.netloc}"))
    return max(found, key=lambda pair: needed.count(pair[0]), default=None)
