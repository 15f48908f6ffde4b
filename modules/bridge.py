"""Detection of the backend, the fallback where it is missing, and the read-only guard: each written once.

Nothing here needs more than the standard library until a backend is found, so that every module can be
imported, and says why it serves locally, on a machine where nothing else is installed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar
from weakref import WeakKeyDictionary

from modules.contracts.clock import Clock, SystemClock
from modules.contracts.component import Component
from modules.contracts.errors import ReadOnlyModuleError, did_you_mean
from modules.contracts.events import EventBus
from modules.contracts.health import BuildContext, HealthMonitor, Probe, Rung
from modules.contracts.slo import SLOTracker
from modules.contracts.state import StateStore

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from modules.settings import AnyProbe, AnyRung

T = TypeVar("T")

_SELF_HEALING = (
    "backend.shared.self_healing.settings",
    "backend.shared.self_healing.monitor",
    "backend.shared.self_healing.probes",
    "backend.shared.self_healing.actions",
    "backend.shared.self_healing.repair",
    "backend.shared.self_healing.recovery",
    "backend.shared.self_healing.audit",
    "backend.shared.monitoring.objectives",
    "backend.shared.state.sqlite",
    "aiohttp",  # the http probe and the webhook rung import it at their first use
)
_MONITORING = (
    "backend.shared.monitoring.metrics",
    "backend.shared.monitoring.objectives",
    "backend.shared.monitoring.samples",
    "backend.shared.monitoring.engine",
    "backend.shared.monitoring.enforcement",
)


@dataclass(frozen=True, slots=True)
class Backend:
    """Whether a backend can serve, and the reason when it cannot."""

    available: bool
    error: str | None


@cache
def detect(*module_names: str) -> Backend:
    """Import the modules once and say whether that worked; ``detect.cache_clear()`` looks again."""
    for name in module_names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken installation raises is the reason that users need
            return Backend(False, f"{name} cannot be imported: {type(error).__name__}: {error}")
    return Backend(True, None)


def detect_self_healing() -> Backend:
    """Whether ``backend/shared/self_healing`` and the state file can serve."""
    return detect(*_SELF_HEALING)


def detect_monitoring() -> Backend:
    """Whether ``backend/shared/monitoring`` can serve."""
    return detect(*_MONITORING)


def resolve(use_backend: bool | None, backend: Backend, what: str) -> bool:
    """Whether the backend serves ``what``: None takes it when there, True falls back with one RuntimeWarning."""
    if use_backend and not backend.available:
        warnings.warn(
            f"{what} serves locally, because the backend is unavailable: {backend.error};"
            " install what is missing, or pass use_backend=False",
            RuntimeWarning,
            stacklevel=3,
        )
    return backend.available and use_backend is not False


# --- what modules share when nothing is handed in -----------------------------------------------------


_grounds: WeakKeyDictionary[HealthMonitor, tuple[Clock, EventBus]] = WeakKeyDictionary()


def ground_for(monitor: HealthMonitor | None, clock: Clock | None, events: EventBus | None) -> tuple[Clock, EventBus]:
    """Return what was handed in, else what ``monitor`` stands on, else the machine's clock and a bus of its own."""
    own_clock, own_events = (None, None) if monitor is None else _grounds.get(monitor, (None, None))
    clock = clock or own_clock or SystemClock()
    return clock, events or own_events or EventBus(clock)


def stands_on(monitor: HealthMonitor, clock: Clock, events: EventBus) -> None:
    """Remember it, so that a repairer that is built on the monitor alone speaks on the same bus."""
    _grounds[monitor] = (clock, events)


# --- what the runtime builds, from whichever side serves ----------------------------------------------


def build_probe(settings: AnyProbe, context: BuildContext, *, use_backend: bool | None = None) -> Probe:
    """Build a service's probe. Raises ConfigurationError, also for what the local probes cannot do."""
    if resolve(use_backend, detect_self_healing(), f"the {settings.kind} probe of {context.service!r}"):
        from backend.shared.self_healing.probes import build_probe as build  # noqa: PLC0415  optional

        return build(settings, context)
    from modules.local.probes import build_probe as build_locally  # noqa: PLC0415  only where it serves

    return build_locally(settings, context)


def build_rung(settings: AnyRung, context: BuildContext, *, use_backend: bool | None = None) -> Rung:
    """Build a rung of a service's ladder. Raises ConfigurationError, also for what the local ones cannot do."""
    if resolve(use_backend, detect_self_healing(), f"the {settings.kind} rung of {context.service!r}"):
        from backend.shared.self_healing.actions import build_rung as build  # noqa: PLC0415  optional

        return build(settings, context)
    from modules.local.actions import build_rung as build_locally  # noqa: PLC0415  only where it serves

    return build_locally(settings, context)


def open_store(path: str, *, clock: Clock, use_backend: bool | None = None) -> tuple[StateStore, list[str]]:
    """Open the state file, or a store in memory, with notes that the user should read. Raises StateError."""
    if resolve(use_backend, detect_self_healing(), "the state store"):
        from backend.shared.state.sqlite import SqliteStore  # noqa: PLC0415  optional

        store = SqliteStore(path, clock=clock)
        return store, list(store.notes)
    from modules.local.state import MemoryStore  # noqa: PLC0415  only where it serves

    return MemoryStore(), [f"state is kept in memory and lost at the end: {path} is written by the backend only"]


class Closable(Protocol):
    """Something that listens until it is closed."""

    def close(self) -> None: ...


def audit_trail(events: EventBus, store: StateStore, *, use_backend: bool | None = None) -> Closable:
    """Write every decision and act on the bus to the store, until closed."""
    if resolve(use_backend, detect_self_healing(), "the audit trail"):
        from backend.shared.self_healing.audit import AuditTrail  # noqa: PLC0415  optional

        return AuditTrail(events, store)
    from modules.local.state import LocalAuditTrail  # noqa: PLC0415  only where it serves

    return LocalAuditTrail(events, store)


def sample_keeper(
    trackers: Callable[[], Mapping[str, SLOTracker]],
    store: StateStore,
    *,
    clock: Clock,
    events: EventBus,
    use_backend: bool | None = None,
) -> Component | None:
    """Keep the trackers' samples in the store; None locally, where nothing outlives the program."""
    if not resolve(use_backend, detect_monitoring(), "the keeper of SLO samples"):
        return None
    from backend.shared.monitoring.samples import SampleKeeper  # noqa: PLC0415  optional

    return SampleKeeper(lambda: trackers().values(), store, clock=clock, events=events)


# --- the read-only guard of quarantined modules -------------------------------------------------------


class ReadOnlyView(Generic[T]):
    """A view of ``source`` that lets ``reads`` through and refuses every other public name it has.

    A subclass's own methods come first: that is where a quarantined module answers in another way. Calling
    a refused method, setting or deleting any attribute raises ReadOnlyModuleError, which names ``module``,
    the call, and the ``instead`` factory whose object takes it. A refused coroutine method raises when called.
    """

    __slots__ = ("__weakref__", "_instead", "_module", "_reads", "_source")

    _source: T

    def __init__(self, source: T, *, module: str, reads: Collection[str], instead: str) -> None:
        for name, value in (
            ("_source", source),
            ("_module", module),
            ("_reads", frozenset(reads)),
            ("_instead", instead),
        ):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self._reads:
            return getattr(self._source, name)
        if name.startswith("_") or not hasattr(type(self._source), name):
            raise AttributeError(f"{self._module} has no {name!r}{did_you_mean(name, self._reads)}")

        def refused(*_args: object, **_kwargs: object) -> NoReturn:
            self._refuse(f"{name}()", f"{self._instead}.{name}()")

        return refused

    def __setattr__(self, name: str, value: object) -> None:
        self._refuse(f"setting {name}", self._instead)

    def __delattr__(self, name: str) -> None:
        self._refuse(f"deleting {name}", self._instead)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._reads})

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise ReadOnlyModuleError(f"{self._module} is quarantined and read only, so {what} is refused; use {instead}")
