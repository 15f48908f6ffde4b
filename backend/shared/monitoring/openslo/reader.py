"""Reads OpenSLO v1 documents (https://github.com/OpenSLO/OpenSLO) as settings of objectives.

Files are read together, so that a document may refer to one in another file. What cannot be taken is a problem
with file, line and path, and all problems of all files come at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath

from backend.shared.monitoring.openslo.alerting import Condition, read_condition, read_policy
from backend.shared.monitoring.openslo.fields import Field, OpenSLOProblem, load_documents
from backend.shared.monitoring.openslo.indicators import IndicatorReader, read_description, read_source_type
from backend.shared.monitoring.openslo.slo import SLOReader, referred
from backend.shared.monitoring.settings import ObjectiveSettings
from modules.contracts.errors import ConfigurationError, did_you_mean

API_VERSION = "openslo/v1"
_KINDS = ("SLO", "SLI", "Service", "AlertPolicy", "AlertCondition", "DataSource")


class OpenSLOError(ConfigurationError):
    """Documents cannot be taken; ``problems`` holds every reason."""

    def __init__(self, problems: list[OpenSLOProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Imported:
    """An objective, and the file and line from which it came."""

    name: str
    settings: ObjectiveSettings
    file: str
    line: int

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}"


def read_openslo(*paths: str | PathLike[str], prefix: str = "selfright") -> list[Imported]:
    """Read files as one set of documents; ``prefix`` is that of our metrics in queries of Prometheus.

    An SLO with one objective gives one of its name. Of several, each is called after the SLO and its displayName,
    or else its number: ``web-good``, ``web-2``. Raises OpenSLOError with every problem.
    """
    problems: list[OpenSLOProblem] = []
    documents = _Documents()
    files = list(dict.fromkeys(fspath(path) for path in paths))
    for file in files:
        for document in load_documents(file, problems):
            documents.add(document)
    found = _read(documents, prefix)
    if problems:
        raise OpenSLOError(sorted(problems, key=lambda problem: (files.index(problem.file), problem.line)))
    return found


@dataclass(frozen=True, slots=True)
class _Document:
    name: str
    named: Field
    spec: Field


class _Documents:
    """All documents by kind and name."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, _Document]] = {kind: {} for kind in _KINDS}

    def of(self, kind: str) -> Mapping[str, _Document]:
        return self._by_kind[kind]

    def add(self, document: Field) -> None:
        given = document.fields(("apiVersion", "kind", "metadata"), ("spec",))
        version = given["apiVersion"].text() if "apiVersion" in given else None
        if version not in (None, API_VERSION):
            given["apiVersion"].refuse(f"found {version!r}", API_VERSION)
        kind = given["kind"].text() if "kind" in given else None
        if kind == "AlertNotificationTarget":
            given["kind"].refuse(f"{kind} cannot be taken", hint="alerts.targets and alerts.routes say who is told")
        elif kind is not None and kind not in _KINDS:
            given["kind"].refuse(f"found {kind!r}{did_you_mean(kind, _KINDS)}", ", ".join(_KINDS))
        named = _read_metadata(given["metadata"]) if "metadata" in given else None
        if version != API_VERSION or kind not in _KINDS or named is None:
            return
        name = named.text()
        spec = given.get("spec")
        if spec is None and kind != "Service":
            document.refuse(f"spec of {kind} {name!r} is missing")
        if name is None or spec is None:
            return
        if (other := self._by_kind[kind].get(name)) is not None:
            named.refuse(f"there is another {kind} {name!r} at {other.named.place}", hint="rename or remove one")
            return
        self._by_kind[kind][name] = _Document(name, named, spec)


def _read_metadata(metadata: Field) -> Field | None:
    given = metadata.fields(("name",), ("displayName", "labels", "annotations"))
    if "displayName" in given:
        given["displayName"].text()
    for name in ("labels", "annotations"):
        if name in given:
            given[name].check_mapping()
    return given.get("name")


def _read(documents: _Documents, prefix: str) -> list[Imported]:
    """Read each document once, however often it is referred to, so that each problem is told once."""
    for service in documents.of("Service").values():
        if not service.spec.is_null:
            read_description(service.spec.fields((), ("description",)))
    sources = {name: read_source_type(document.spec) for name, document in documents.of("DataSource").items()}
    read_indicator = IndicatorReader(prefix, sources).read
    indicators = {name: read_indicator(document.spec) for name, document in documents.of("SLI").items()}
    conditions = {name: read_condition(document.spec) for name, document in documents.of("AlertCondition").items()}

    def read_own_policy(spec: Field) -> Condition | None:
        return read_policy(spec, lambda reference: referred(reference, "AlertCondition", conditions))

    policies = {name: read_own_policy(document.spec) for name, document in documents.of("AlertPolicy").items()}
    slos = SLOReader(indicators, policies, read_indicator, read_own_policy)
    found: dict[str, Imported] = {}
    for document in documents.of("SLO").values():
        for name, settings in slos.read(document.name, document.spec):
            if (other := found.get(name)) is not None:
                document.named.refuse(f"gives an objective {name!r}, as {other.place} does", hint="rename one")
            else:
                found[name] = Imported(name, settings, document.named.file, document.named.line)
    return list(found.values())
