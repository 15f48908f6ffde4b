import pytest

from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import DependencyError

SHOP = {"store": (), "api": ("store",), "web": ("api",), "worker": ("store",), "lonely": ()}


def test_every_service_comes_after_those_it_depends_on():
    order = DependencyGraph(SHOP).order
    assert all(order.index(need) < order.index(name) for name, needs in SHOP.items() for need in needs)


def test_an_unknown_dependency_is_named_with_the_nearest_service():
    with pytest.raises(DependencyError, match=r"api depends on 'stroe', which is no service \(did you mean 'store'"):
        DependencyGraph({"store": (), "api": ("stroe",)})


def test_a_cycle_is_told_as_a_path():
    with pytest.raises(DependencyError, match=r"a -> b -> a|b -> a -> b"):
        DependencyGraph({"a": ("b",), "b": ("a",)})


def test_only_the_root_of_a_chain_of_failures_is_blamed():
    graph = DependencyGraph(SHOP)
    assert graph.failed_roots("web", {"api", "store", "web"}) == ("store",)
    assert graph.failed_roots("web", {"api", "web"}) == ("api",)
    assert graph.failed_roots("store", {"store", "api"}) == ()


@pytest.mark.parametrize(
    ("scope", "restarted"),
    [("one", {"api"}), ("rest", {"api", "web"}), ("all", {"store", "api", "web", "worker"})],
)
def test_the_scope_says_what_restarts_with_a_service(scope, restarted):
    group = DependencyGraph(SHOP).restart_group("api", scope)
    assert set(group) == restarted
    assert list(group) == [name for name in DependencyGraph(SHOP).order if name in restarted]
