import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway_app.observe import families
from gateway_app.observe.backends import BackendSampler
from gateway_app.observe.exposition import render
from gateway_app.observe.families import FAMILIES, SUMMED
from gateway_app.observe.metrics import Metrics
from gateway_app.observe.shared_values import (
    SEGMENT_VALUES,
    VALUE_BYTES,
    ValueWriter,
    read_workers,
    retire,
    sum_series,
)

Scrape = Callable[..., float | None]


def work(directory: Path, count: int) -> None:
    """A worker, which runs this file: counts, then holds still until it is told to end."""
    metrics = Metrics(directory)
    route = metrics.route("users")
    for _ in range(count):
        route.observe("b", 200, 0.003, 1, 10)
    metrics.in_flight = count
    metrics.cell(families.ENDPOINT_UP, "b", "e").set(count == 1000)
    metrics.sample()
    print("counted", flush=True)
    sys.stdin.read()


@contextmanager
def full_disk(room_bytes: int = 0) -> Iterator[None]:
    """No file of this process grows beyond so much."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_fails_no_request_and_is_told_once(
    tmp_path: Path, scrape: Scrape, caplog: pytest.LogCaptureFixture
) -> None:
    with full_disk():
        metrics = Metrics(tmp_path)
        for _ in range(3):
            metrics.route("early").observe("b", 200, 0.003, 1, 10)
            metrics.count_error("early", "no_route")
            metrics.sample()
    assert len(caplog.records) == 1
    assert "no room" in caplog.text

    metrics.route("late").observe("b", 200, 0.003, 1, 10)
    assert scrape("requests_total", route="late", backend="b", code="200") == 1
    metrics.close()


def test_a_name_that_found_no_room_is_written_when_there_is_some(tmp_path: Path, scrape: Scrape) -> None:
    metrics = Metrics(tmp_path)
    names = next(tmp_path.glob("*.series"))
    with full_disk(names.stat().st_size + 10):
        metrics.cell(families.ERRORS, "r", "no_route").add()
        assert scrape("errors_total", route="r", cause="no_route") is None  # half a line is none
    metrics.sample()
    assert scrape("errors_total", route="r", cause="no_route") == 1
    metrics.close()


def test_numbers_have_their_room_before_they_are_written(tmp_path: Path) -> None:
    """Else a full file system would end the process at the first write to a page."""
    writer = ValueWriter(tmp_path)
    block = writer.allocate(3000)
    assert next(tmp_path.glob("*.values")).stat().st_blocks * 512 >= (block.slot + 3000) * VALUE_BYTES
    writer.close()


def test_what_ended_workers_have_counted_stays_where_there_is_no_room_to_add_it_up(tmp_path: Path) -> None:
    for pid in range(10):
        writer = ValueWriter(tmp_path, f"{pid + 1}-1.aaaa")
        block = writer.allocate(1)
        block.values[block.base] = 1.0
        writer.describe((families.RETRIES, ("b",)), block.slot, 1)
        writer.close()
    with full_disk():
        retire(tmp_path, summed=SUMMED)
    assert sum_series(read_workers(tmp_path), SUMMED) == {(families.RETRIES, ("b",)): [10.0]}
    retire(tmp_path, summed=SUMMED)
    assert len(list(tmp_path.glob("*.series"))) == 1
    assert sum_series(read_workers(tmp_path), SUMMED) == {(families.RETRIES, ("b",)): [10.0]}


def test_a_sampler_that_fails_is_told_once_and_tried_again(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[None] = []

    def sampler() -> None:
        calls.append(None)
        if len(calls) != 4:
            raise OSError("no file")

    metrics.add_sampler(sampler)
    for _ in range(5):
        metrics.sample()
    assert len(calls) == 5
    assert [record.getMessage() for record in caplog.records] == ["a sampler has failed: no file"] * 2


def test_workers_are_summed_and_what_a_killed_one_counted_stays(tmp_path: Path, scrape: Scrape) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, tmp_path, count], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for count in ("1000", "500")
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"counted\n"
    route = {"route": "users"}
    assert scrape("requests_total", route="users", backend="b", code="200") == 1500
    assert scrape("request_duration_seconds_bucket", le="0.0025", **route) == 0
    assert scrape("request_duration_seconds_bucket", le="0.005", **route) == 1500
    assert scrape("request_duration_seconds_count", **route) == 1500
    assert scrape("request_duration_seconds_sum", **route) == pytest.approx(4.5)
    assert scrape("response_body_bytes_total", **route) == 15_000
    assert scrape("requests_in_flight") == 1500
    assert scrape("upstream_endpoint_up", backend="b", endpoint="e") == 0, "one worker finds it down"
    for worker in workers:
        assert (scrape("worker_resident_memory_bytes", worker=str(worker.pid)) or 0) > 1_000_000

    workers[0].kill()
    workers[0].communicate()
    assert scrape("requests_total", route="users", backend="b", code="200") == 1500
    assert scrape("requests_in_flight") == 500
    workers[1].communicate()


def test_the_files_of_ended_workers_are_folded_into_one(tmp_path: Path, scrape: Scrape) -> None:
    for number in range(8):
        metrics = Metrics(tmp_path)
        metrics.route("r").observe("", 404, 0.2, 0, 0)
        metrics.in_flight = 3
        metrics.sample()
        metrics.close()
        ended = f"{2**22 + number}-1.x"  # a process id that cannot exist
        for path in tmp_path.glob(f"{metrics.writer.name}.*"):
            path.rename(path.with_name(ended + path.suffix))
    assert scrape("requests_total", route="r", backend="", code="404") == 8
    last = Metrics(tmp_path)
    assert len(list(tmp_path.glob("*.series"))) == 2
    assert scrape("requests_total", route="r", backend="", code="404") == 8
    assert scrape("request_duration_seconds_count", route="r") == 8
    assert scrape("requests_in_flight") == 0
    last.close()


def test_the_same_labels_are_the_same_numbers(metrics: Metrics, scrape: Scrape) -> None:
    assert metrics.route("r") is metrics.route("r")
    assert metrics.endpoint("b", "e") is metrics.endpoint("b", "e")
    metrics.cell(families.RELOADS, "ok").add()
    metrics.cell(families.RELOADS, "ok").add(2)
    assert scrape("config_reloads_total", result="ok") == 3


def test_a_family_wants_its_labels(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="has the labels"):
        metrics.cell(families.RELOADS)


def test_status_codes(metrics: Metrics, scrape: Scrape) -> None:
    for status in (200, 0, 777, 799, 503):
        metrics.unrouted.observe("", status, 100.0, 0, 0)
    for code, count in {"200": 1, "499": 1, "7xx": 2, "503": 1}.items():
        assert scrape("requests_total", route="", backend="", code=code) == count
    assert scrape("request_duration_seconds_bucket", route="", le="60.0") == 0
    assert scrape("request_duration_seconds_bucket", route="", le="+Inf") == 5


def test_a_backend_that_a_middleware_chose_has_its_own_series(metrics: Metrics, scrape: Scrape) -> None:
    for backend in ("a", "b", "b"):
        metrics.route("split").observe(backend, 200, 0.1, 0, 0)
    assert scrape("requests_total", route="split", backend="b", code="200") == 2


def test_numbers_grow_beyond_one_segment(metrics: Metrics) -> None:
    count = SEGMENT_VALUES // 19 + 2  # a route has 19 numbers
    for number in range(count):
        metrics.route(f"r{number}").observe("b", 200, 0.1, 0, number)
    (worker,) = read_workers(metrics.directory)
    for number in (0, 1, count - 1):
        assert worker.series[families.RESPONSE_BYTES, (f"r{number}",)] == [number]
        assert worker.series[families.REQUESTS, (f"r{number}", "b", "200")] == [1.0]


def test_endpoints_are_sampled_and_forgotten(metrics: Metrics, scrape: Scrape) -> None:
    transport = SimpleNamespace(status=lambda: {"open": 5, "idle": 2, "waiting": 1})
    endpoint = SimpleNamespace(
        key="http://e",
        requests=7,
        answers=6,
        answer_wait_s=1.5,
        failures=2,
        active=3,
        down=False,
        ejected_until=9.0,
        transport=transport,
    )
    backends = [SimpleNamespace(name="b", endpoints=[endpoint])]
    metrics.add_sampler(BackendSampler(metrics, lambda: backends))
    metrics.sample()
    labels = {"backend": "b", "endpoint": "http://e"}
    assert scrape("upstream_connections", state="active", **labels) == 3
    assert scrape("upstream_connections", state="idle", **labels) == 2
    assert scrape("upstream_requests_waiting", **labels) == 1
    assert scrape("upstream_requests_in_flight", **labels) == 3
    assert scrape("upstream_attempts_total", **labels) == 7
    assert scrape("upstream_failures_total", **labels) == 2
    assert scrape("upstream_first_byte_seconds_count", **labels) == 6
    assert scrape("upstream_first_byte_seconds_sum", **labels) == 1.5
    assert scrape("upstream_endpoint_up", **labels) == 1
    assert scrape("upstream_endpoint_ejected", **labels) == 1
    backends.clear()
    metrics.sample()
    assert scrape("upstream_endpoint_up", **labels) is None
    assert scrape("upstream_attempts_total", **labels) == 7


def test_a_sampler_that_fails_does_not_stop_the_others(metrics: Metrics, scrape: Scrape) -> None:
    def fail() -> None:
        raise RuntimeError

    metrics.remove_sampler(metrics._samplers[0])
    metrics.add_sampler(fail)
    metrics.add_sampler(lambda: metrics.cell(families.IN_FLIGHT).set(4))
    metrics.sample()
    assert scrape("requests_in_flight") == 4


def test_openmetrics_where_it_is_asked_for(metrics: Metrics) -> None:
    metrics.unrouted.observe("", 200, 0.1, 0, 0)
    body, media_type = render(metrics.directory, "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert render(metrics.directory, "text/html")[1].startswith("text/plain")


def test_a_line_being_written_is_not_read(metrics: Metrics) -> None:
    metrics.cell(families.RELOADS, "ok").add()
    with (metrics.directory / f"{metrics.writer.name}.series").open("a") as series:
        series.write('["l47_gateway_config_rel')
    (worker,) = read_workers(metrics.directory)
    assert worker.series[families.RELOADS, ("ok",)] == [1.0]


def test_every_family_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    for family in FAMILIES.values():
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        assert f"`{name}`" in text, name
    assert families.IN_FLIGHT not in SUMMED


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
