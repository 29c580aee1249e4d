import pickle

import pytest

from sge2hist.data.errors import InputError, Problems


def test_message_holds_all_parts() -> None:
    error = InputError(found="a", where="b.h5", expected="c", repair="--d")
    assert str(error) == "b.h5: found a; expected c; to repair: --d"


def test_error_survives_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(InputError(found="a", where="b", expected="c", repair="d")))
    assert (error.found, error.where, error.expected, error.repair) == ("a", "b", "c", "d")


def test_problems_are_reported_together() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add(found="one")
    with pytest.raises(InputError, match=r"^found one$"):
        problems.raise_if_any()
    problems.add(found="two", where="x")
    with pytest.raises(InputError, match=r"(?s)2 problems.*one.*x: found two"):
        problems.raise_if_any()
