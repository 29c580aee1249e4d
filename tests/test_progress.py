"""Progress where no bar can move: a line at the end of a stage and at least every few seconds."""

import time

import pytest

from sge2hist import progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_each_stage_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.stages(show=True) as on_progress:
        for done in range(0, 31):
            on_progress("reading", done, 30)
        on_progress("reading", 30, 30)
        on_progress("writing", 1, 1)
    assert lines(capsys) == ["reading: 30/30, 0 s", "writing: 1/1, 0 s"]


def test_a_stage_that_reports_nothing_is_heard_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.08)
    with progress.stages(show=True) as on_progress:
        on_progress("pictures", 0, 1)
        time.sleep(0.5)
        on_progress("pictures", 1, 1)
    found = lines(capsys)
    assert len(found) >= 3
    assert found[0].startswith("pictures: 0/1")
    assert found[-1].startswith("pictures: 1/1")


def test_an_unknown_total_is_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("encoding", None) as advance:
        advance(167_000)
        advance(694)
    assert lines(capsys) == ["encoding: 167,694, 0 s"]


def test_nothing_is_shown_when_quiet_or_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.quietly(), progress.bar("a", 3) as advance:
        advance(3)
    with progress.bar("a", 3, show=None) as advance:
        advance(3)
    assert lines(capsys) == []


def test_an_error_inside_leaves_no_thread(capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    def work() -> None:
        with progress.stages(show=True) as on_progress:
            on_progress("reading", 1, 3)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert not [thread for thread in threading.enumerate() if thread.name == "sge2hist-progress"]
