"""Which headers are a context, by the rules of W3C Trace Context; OpenTelemetry's own reader is the oracle."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from modules.contracts.tracing import SpanContext, read_context, write_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


def test_the_recommendations_own_example_is_read_and_written_as_it_came():
    context = read_context({"traceparent": VALID, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"})
    assert context == SpanContext(TRACE, SPAN, 1, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", remote=True)
    assert context.sampled
    headers: dict[str, str] = {}
    write_context(headers, context)
    assert headers == {"traceparent": VALID, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"\u0660\u0660-{TRACE}-{SPAN}-01",
    ],
)
def test_a_header_that_is_not_valid_is_ignored(header: str):
    assert read_context({"traceparent": header}) is None


@pytest.mark.parametrize("header", [f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known_and_answered_in_ours(header: str):
    context = read_context({"traceparent": header})
    assert context is not None
    assert context.traceparent == VALID


def test_flags_that_are_not_known_are_not_sent_on():
    context = read_context({"traceparent": f"00-{TRACE}-{SPAN}-ff"})
    assert context is not None
    assert context.traceparent == f"00-{TRACE}-{SPAN}-03"


def test_names_are_found_in_any_case_and_two_parents_are_none():
    assert read_context({"TraceParent": VALID}) is not None
    assert read_context({"traceparent": VALID, "Traceparent": VALID}) is None


def test_a_context_that_the_request_already_has_stays():
    headers = {"Traceparent": "mine"}
    write_context(headers, SpanContext(TRACE, SPAN, 1, "a=1"))
    assert headers == {"Traceparent": "mine"}


@pytest.mark.parametrize(
    "state",
    ["a", "=1", "a=", "A=1", "a=1,a=2", "a=\x00", "a=1=2", ",".join(f"k{n}=1" for n in range(33)), "a=" + "x" * 600],
)
def test_a_state_that_is_not_valid_is_left_out_and_the_parent_still_counts(state: str):
    context = read_context({"traceparent": VALID, "tracestate": state})
    assert context is not None
    assert context.trace_state == ""


def test_the_states_of_several_headers_are_one_list():
    context = read_context({"traceparent": VALID, "tracestate": "a=1, ,b=2", "Tracestate": "t@v=3"})
    assert context is not None
    assert context.trace_state == "a=1,b=2,t@v=3"


hexes = st.text("0123456789abcdef", max_size=33)
near = st.builds(
    "{}-{}-{}-{}{}".format,
    st.sampled_from(["00", "01", "ff", "0", "cc", "0g"]),
    st.just(TRACE) | st.just("0" * 32) | hexes,
    st.just(SPAN) | st.just("0" * 16) | hexes,
    st.sampled_from(["00", "01", "02", "ff", "1", ""]),
    st.sampled_from(["", "-", "-more", "more", " ", "\t"]),
)


@given(header=near | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@example(header=f" {VALID}\t")
def test_whatever_comes_is_read_as_opentelemetry_reads_it(header: str):
    found = TraceContextTextMapPropagator().extract({"traceparent": header})
    expected = otel.get_current_span(found).get_span_context()
    context = read_context({"traceparent": header})
    if context is None:
        assert not expected.is_valid
    else:
        assert (int(context.trace_id, 16), int(context.span_id, 16), context.flags) == (
            expected.trace_id,
            expected.span_id,
            int(expected.trace_flags),
        )
