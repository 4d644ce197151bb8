"""What is measured: every stage once, failures apart, labels from a short list; and nothing that users wrote."""

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.telemetry.figures import ACTS, OUTCOMES, Figures
from orchestrator.adapters.telemetry.measured import MeasuredAgent, MeasuredEngine
from orchestrator.adapters.telemetry.several import Several
from orchestrator.adapters.telemetry.spans import Spans
from orchestrator.domain.errors import EngineUnavailableError
from orchestrator.domain.model import CellOrder
from orchestrator.domain.telemetry import STAGES, Mark, Subject
from orchestrator.logs import JsonLines, TextLines, WhoseSessions
from tests.manual_clock import ManualClock
from tests.unit.pretended_agent import FakeAgent
from tests.unit.pretended_engine import FakeEngine
from tests.unit.pretended_faults import Faults

ROOT = Path(__file__).parents[2]
SUBJECT = Subject("a tenant", "a" * 32, 1, 2)


def value(figures: Figures, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", figures.exposition().decode(), re.MULTILINE)
    assert found, figures.exposition().decode()
    return float(found[1])


def test_every_line_is_there_from_the_start() -> None:
    figures = Figures(ManualClock())
    for outcome in OUTCOMES:
        assert value(figures, f'orchestrator_executions_total{{outcome="{outcome}"}}') == 0
    for stage in STAGES:
        assert value(figures, f'orchestrator_stage_seconds_count{{stage="{stage}"}}') == 0
    for act in ACTS:
        assert value(figures, f'orchestrator_acts_total{{act="{act}"}}') == 0


def test_a_stage_is_counted_once_and_a_failed_one_also_as_that() -> None:
    clock = ManualClock()
    figures = Figures(clock)
    with figures.stage("start", SUBJECT):
        clock.advance(2.0)
    with pytest.raises(ValueError, match="no"), figures.stage("start", SUBJECT):
        raise ValueError("no")
    assert value(figures, 'orchestrator_stage_seconds_count{stage="start"}') == 2
    assert value(figures, 'orchestrator_stage_seconds_sum{stage="start"}') == 2.0
    assert value(figures, 'orchestrator_stage_failures_total{stage="start"}') == 1


def test_a_call_that_waited_is_counted_with_its_wait() -> None:
    clock = ManualClock()
    figures = Figures(clock)
    since = figures.mark()
    clock.advance(3.0)
    with figures.turn(since, SUBJECT):
        pass
    assert value(figures, 'orchestrator_stage_seconds_sum{stage="queue"}') == 3.0


def test_no_label_comes_from_outside() -> None:
    figures = Figures(ManualClock())
    figures.executed("whatever a sandbox says", SUBJECT, 1.0)
    said = figures.exposition().decode()
    assert "whatever" not in said
    assert "a tenant" not in said


def test_names_follow_the_rules_of_prometheus() -> None:
    """Base units at the end, `_total` for counters alone, a help text, a prefix of our own, few labels."""
    figures = Figures(ManualClock())
    figures.standing({"ready": 1}, 100)
    families = list(text_string_to_metric_families(figures.exposition().decode()))
    assert len(families) >= 7
    for family in families:
        assert re.fullmatch(r"orchestrator_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation
        assert not re.search(r"_(milliseconds|ms|minutes|kb|mb|total|count|sum|bucket)$", family.name)
        assert family.type != "histogram" or family.name.endswith(("_seconds", "_bytes"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter" and not sample.name.endswith("_created"))
            assert set(sample.labels) <= {"outcome", "stage", "act", "state", "le"}


async def test_an_agents_stages_are_told_and_its_answers_are_untouched() -> None:
    figures, agent = Figures(ManualClock()), FakeAgent(Faults())
    measured = MeasuredAgent(agent, figures)
    await measured.claim("a" * 32, 1)
    report = await measured.execute(CellOrder(1, "x = 1", 60.0, 2.0, 100, 100))
    assert agent.namespace == {"x": 1}
    assert report.outcome == "ok"
    assert value(figures, 'orchestrator_executions_total{outcome="ok"}') == 1
    for stage in ("claim", "execute"):
        assert value(figures, f'orchestrator_stage_seconds_count{{stage="{stage}"}}') == 1


async def test_what_the_engine_fails_is_counted_and_raised_all_the_same() -> None:
    figures, engine = Figures(ManualClock()), FakeEngine()
    engine.failures.append(EngineUnavailableError("gone"))
    with pytest.raises(EngineUnavailableError):
        await MeasuredEngine(engine, figures).destroy("a")
    assert value(figures, "orchestrator_engine_errors_total") == 1


@pytest.fixture
def spans() -> Iterator[tuple[Spans, InMemorySpanExporter, TracerProvider]]:
    """Spans that stay in memory."""
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    yield Spans(provider.get_tracer("test"), lambda: 1_000), kept, provider
    provider.shutdown()


def test_what_a_turn_does_belongs_to_the_trace_of_its_caller(
    spans: tuple[Spans, InMemorySpanExporter, TracerProvider],
) -> None:
    told, kept, provider = spans
    with provider.get_tracer("caller").start_as_current_span("call") as call:
        since = told.mark()
    with told.turn(since, SUBJECT), told.stage("execute", SUBJECT):
        pass
    with told.stage("snapshot", SUBJECT):
        pass
    by_name = {span.name: span for span in kept.get_finished_spans()}
    trace = call.get_span_context().trace_id
    assert by_name["queue"].context.trace_id == trace
    assert by_name["execute"].context.trace_id == trace
    assert by_name["snapshot"].context.trace_id != trace, "it came after the turn"
    assert dict(by_name["execute"].attributes or {})["orchestrator.execution"] == 2


def test_a_start_that_knows_no_session_is_that_of_whose_turn_it_is(
    spans: tuple[Spans, InMemorySpanExporter, TracerProvider],
) -> None:
    told, kept, _ = spans
    with told.turn(told.mark(), SUBJECT), told.stage("start", Subject()):
        pass
    with told.stage("start", Subject()):
        pass
    _, in_turn, by_itself = kept.get_finished_spans()
    assert dict(in_turn.attributes or {})["orchestrator.session"] == SUBJECT.session
    assert not by_itself.attributes


def test_a_span_says_of_a_failure_its_kind_and_not_its_words(
    spans: tuple[Spans, InMemorySpanExporter, TracerProvider],
) -> None:
    told, kept, _ = spans
    with pytest.raises(ValueError, match="a secret"), told.stage("execute", SUBJECT):
        raise ValueError("a secret")
    (span,) = kept.get_finished_spans()
    assert span.status.description == "ValueError"
    assert "a secret" not in span.to_json()


def test_a_cell_is_logged_with_its_ids_and_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Several(Figures(ManualClock())).executed("ok", SUBJECT, 0.5)
    (record,) = caplog.records
    line = json.loads(JsonLines().format(record))
    assert line["message"] == "cell ended: ok after 500.0 ms"
    assert (line["tenant"], line["session"], line["incarnation"], line["execution"]) == ("a tenant", "a" * 32, 1, 2)
    assert "execution=2" in TextLines("%(message)s%(ids)s").format(record)


def test_the_tenant_of_a_sessions_turn_is_told_of_all_that_its_sandbox_does(
    spans: tuple[Spans, InMemorySpanExporter, TracerProvider], caplog: pytest.LogCaptureFixture
) -> None:
    told, kept, _ = spans
    both = Several(told)
    key, other = "a" * 32, "b" * 32
    for tenant, session in (("one", key), ("two", other)):
        with both.turn(Mark(0.0, (Mark(0.0),)), Subject(tenant, session)):
            pass
    with caplog.at_level(logging.INFO), both.stage("snapshot", Subject(session=key)):
        both.executed("ok", Subject(session=other, execution=1), 0.5)
    (record,) = caplog.records
    assert json.loads(JsonLines().format(record))["tenant"] == "two"
    snapshot = kept.get_finished_spans()[-1]
    assert (snapshot.name, dict(snapshot.attributes or {})["orchestrator.tenant"]) == ("snapshot", "one")


def test_several_each_get_their_own_mark() -> None:
    one, other = Figures(ManualClock()), Figures(ManualClock())
    both = Several(one, other)
    with both.turn(both.mark(), SUBJECT):
        pass
    with both.turn(Mark(0.0), SUBJECT):
        pass
    assert value(other, 'orchestrator_stage_seconds_count{stage="queue"}') == 2


def test_a_record_that_names_a_session_alone_gets_the_tenant_that_was_named_before() -> None:
    whose = WhoseSessions()

    def told(**ids: str) -> object:
        record = logging.makeLogRecord(ids)
        assert whose.filter(record)
        return getattr(record, "tenant", None)

    assert told(session="a") is None
    assert told(session="a", tenant="red") == "red"
    assert told(session="a") == "red"
    assert told(session="b") is None
    assert told() is None


def test_every_line_about_a_session_has_its_ids_as_fields() -> None:
    """A text that names one, and has no fields, cannot be found by who looks for that session."""
    lacking = []
    for path in sorted((ROOT / "orchestrator" / "services").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger."):
                named = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
                names_one = named & {"key", "_key", "session_id"} or "session %" in ast.unparse(node)
                if names_one and not any(keyword.arg == "extra" for keyword in node.keywords):
                    lacking.append(f"{path.name}: {ast.unparse(node)}")
    assert lacking == []
