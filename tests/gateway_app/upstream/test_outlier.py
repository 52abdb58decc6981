from __future__ import annotations

import pytest

from gateway_app.config.backends import OutlierConfig
from gateway_app.upstream.endpoint import Endpoint
from gateway_app.upstream.outlier import OutlierDetector

NOW = 10_000.0


def failing(times: int, *, ejections: int = 0, returned_at: float = NOW) -> Endpoint:
    endpoint = Endpoint("http://127.0.0.1:1")
    endpoint.failures_in_row, endpoint.ejections, endpoint.returned_at = times, ejections, returned_at
    return endpoint


def test_ejected_at_the_number_of_failures() -> None:
    detector = OutlierDetector(OutlierConfig(consecutive_failures=5, eject_for=30.0))

    assert detector.ejection_s(failing(4), 0, 3, NOW) == 0.0
    assert detector.ejection_s(failing(5), 0, 3, NOW) == 30.0


@pytest.mark.parametrize(
    ("ejections", "good_for_s", "duration_s"),
    [(1, 0, 60), (2, 0, 90), (50, 0, 300), (2, 31, 60), (2, 65, 30), (2, 10_000, 30)],
)
def test_it_grows_with_repeats_and_is_made_good_by_service(
    ejections: int, good_for_s: float, duration_s: float
) -> None:
    detector = OutlierDetector(OutlierConfig(eject_for=30.0))
    endpoint = failing(5, ejections=ejections, returned_at=NOW - good_for_s)

    assert detector.ejection_s(endpoint, 0, 3, NOW) == duration_s


@pytest.mark.parametrize(
    ("share", "total", "most"),
    [(0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.5, 4, 2), (0.1, 3, 1), (1.0, 3, 3), (0.0, 3, 0)],
)
def test_no_more_than_the_share_is_ejected(share: float, total: int, most: int) -> None:
    detector = OutlierDetector(OutlierConfig(max_ejected=share))

    allowed = [bool(detector.ejection_s(failing(9), ejected, total, NOW)) for ejected in range(total)]

    assert allowed == [True] * most + [False] * (total - most)


def test_failures_of_one_that_is_ejected_change_nothing() -> None:
    endpoint = failing(9)
    endpoint.ejected_until = NOW + 5

    assert OutlierDetector(OutlierConfig()).ejection_s(endpoint, 0, 3, NOW) == 0.0
