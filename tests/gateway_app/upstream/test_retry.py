from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app.config.backends import RetryConfig
from gateway_app.problem import Cause
from gateway_app.upstream.retry import RetryBudget, RetryPolicy
from gateway_app.upstream.transport import Sent

DEFAULT = RetryPolicy(RetryConfig())
NONE = RetryPolicy(None)


def allows(
    policy: RetryPolicy,
    method: str,
    reason: Cause | int,
    sent: Sent,
    attempts: int,
    *,
    body_replayable: bool = True,
    has_untried: bool = True,
) -> bool:
    return policy.allows(
        method, reason, sent, attempts, body_replayable=body_replayable, has_untried=has_untried
    )


@pytest.mark.parametrize(
    ("method", "reason", "sent", "attempts", "allowed"),
    [
        ("GET", Cause.CONNECTION_REFUSED, Sent.NOTHING, 1, True),
        ("POST", Cause.CONNECTION_REFUSED, Sent.NOTHING, 1, True),  # nothing was sent: no repeat
        ("POST", Cause.CONNECT_TIMEOUT, Sent.NOTHING, 2, True),
        ("GET", Cause.CONNECTION_REFUSED, Sent.NOTHING, 3, False),  # attempts = 2 beyond the first
        ("GET", Cause.CONNECTION_RESET, Sent.MAYBE, 1, True),
        ("POST", Cause.CONNECTION_RESET, Sent.MAYBE, 1, False),
        ("GET", 503, Sent.MAYBE, 2, True),
        ("PATCH", 503, Sent.MAYBE, 1, False),
        ("GET", 500, Sent.MAYBE, 1, False),
        ("GET", Cause.RESPONSE_TIMEOUT, Sent.MAYBE, 1, False),  # "timeout" is not in the default
        ("GET", Cause.ANSWER_INCOMPLETE, Sent.MAYBE, 1, False),
        ("GET", Cause.BAD_ANSWER, Sent.MAYBE, 1, False),
        ("GET", Cause.OVERLOADED, Sent.NOTHING, 1, False),
        ("GET", Cause.CONNECTION_RESET, Sent.REUSED, 3, True),  # one beyond the attempts
        ("GET", Cause.CONNECTION_RESET, Sent.REUSED, 4, False),
        ("POST", Cause.CONNECTION_RESET, Sent.REUSED, 1, False),
    ],
)
def test_default_table(method: str, reason: Cause | int, sent: Sent, attempts: int, allowed: bool) -> None:
    assert allows(DEFAULT, method, reason, sent, attempts) is allowed
    without_body = allows(DEFAULT, method, reason, sent, attempts, body_replayable=False)
    assert without_body is (allowed and sent is Sent.NOTHING)


def test_without_a_table_the_reused_connection_is_retried_once() -> None:
    assert allows(NONE, "GET", Cause.CONNECTION_RESET, Sent.REUSED, 1)
    assert not allows(NONE, "GET", Cause.CONNECTION_RESET, Sent.REUSED, 2)
    assert not NONE.statuses


@pytest.mark.parametrize("cause", [Cause.CONNECTION_REFUSED, Cause.CONNECT_TIMEOUT, Cause.CONNECTION_RESET])
def test_without_a_table_what_was_not_sent_goes_to_each_endpoint_once(cause: Cause) -> None:
    assert allows(NONE, "POST", cause, Sent.NOTHING, 1, body_replayable=False)
    assert allows(NONE, "GET", cause, Sent.NOTHING, 9)
    assert not allows(NONE, "GET", cause, Sent.NOTHING, 1, has_untried=False)
    assert not allows(NONE, "GET", cause, Sent.MAYBE, 1)
    assert not allows(NONE, "GET", Cause.OVERLOADED, Sent.NOTHING, 1)


def test_a_table_without_connect_turns_failing_over_off() -> None:
    policy = RetryPolicy(RetryConfig(on=("503",)))

    assert not allows(policy, "GET", Cause.CONNECTION_REFUSED, Sent.NOTHING, 1)


def test_timeout_is_retried_where_the_table_says_so() -> None:
    policy = RetryPolicy(
        RetryConfig.model_construct(attempts=1, on=("timeout",), methods=("GET",), budget=0.2)
    )

    assert allows(policy, "GET", Cause.RESPONSE_TIMEOUT, Sent.MAYBE, 1)
    assert not allows(policy, "GET", Cause.TOTAL_TIMEOUT, Sent.MAYBE, 1)


def test_backoff_doubles_within_bounds() -> None:
    assert [RetryPolicy.backoff_s(attempts, 1.0) for attempts in (1, 2, 3, 4, 5, 9)] == [
        0.025,
        0.05,
        0.1,
        0.2,
        0.25,
        0.25,
    ]
    assert RetryPolicy.backoff_s(3, 0.0) == 0.0


def test_budget_grants_its_share() -> None:
    budget = RetryBudget(0.2, now=0.0)
    budget.requests += 5000

    granted = sum(budget.withdraw(5.0) for _ in range(2000))

    assert granted == budget.granted == 1000
    assert budget.refused == 1000


def test_little_traffic_gets_a_minimum() -> None:
    budget = RetryBudget(0.2, now=0.0)
    budget.requests += 1

    assert sum(budget.withdraw(1.0) for _ in range(500)) == RetryBudget.MINIMUM


def test_a_share_of_zero_grants_nothing() -> None:
    assert not RetryBudget(0.0, now=0.0).withdraw(1.0)


def test_what_a_quiet_hour_saved_up_does_not_count() -> None:
    budget = RetryBudget(0.2, now=0.0)
    budget.requests += 360_000  # 100 a second for an hour: 1000 in a window, so 200 retries

    assert sum(budget.withdraw(3600.0) for _ in range(5000)) == 200


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 400), st.integers(0, 200)), max_size=40))
def test_retries_never_pass_the_share_by_more_than_the_minimum(steps: list[tuple[float, int, int]]) -> None:
    budget = RetryBudget(0.2, now=0.0)
    now, requests, granted = 0.0, 0, 0
    for wait_s, arrivals, wanted in steps:
        now += wait_s
        budget.requests += arrivals
        requests += arrivals
        granted += sum(budget.withdraw(now) for _ in range(wanted))

    windows = int(now / RetryBudget.WINDOW_S) + 1
    assert granted <= 2 * 0.2 * requests + 2 * RetryBudget.MINIMUM * windows
