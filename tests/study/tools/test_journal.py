"""The journal: nothing lost, nothing doubled, whoever writes and whatever dies in between."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mmrlhf_core.data.records import Ranking
from mmrlhf_study.annotation.records import Judgement
from mmrlhf_study.tools import journal
from mmrlhf_study.tools.journal import JournalError


def work(query: str = "q1", who: str = "bea", ranks=(1, 2)) -> tuple[list[Judgement], Ranking]:
    ids = tuple(f"{query}/{k}" for k in range(len(ranks)))
    judged = [Judgement(query, one, who, 4, 5, 5, 'says "no" <b>\n', 2.5, k, 1) for k, one in enumerate(ids, 1)]
    return judged, Ranking(query, who, ids, tuple(ranks), "é")


def test_what_is_appended_is_read_and_counts_once(tmp_path):
    file = tmp_path / "deep/journal.jsonl"
    assert journal.read(file) == ([], [])
    assert journal.append(file, *work())
    assert journal.append(file, *work("q2", ranks=(1, 1)))
    judged, ranked = journal.read(file)
    assert judged == work()[0] + work("q2")[0]
    assert ranked == [work()[1], work("q2", ranks=(1, 1))[1]]
    assert journal.done(file, "bea") == {"q1", "q2"}
    assert journal.done(file, "al") == set()
    file = tmp_path / "journal.jsonl"
    assert journal.append(file, *work())
    before = file.read_bytes()
    assert not journal.append(file, *work(ranks=(2, 1)))
    assert file.read_bytes() == before
    assert journal.append(file, *work(who="al"))


def test_a_line_cut_by_a_crash_is_cleared_by_the_next_one(tmp_path):
    file = tmp_path / "journal.jsonl"
    journal.append(file, *work())
    whole = file.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole + whole.replace(b"q1", b"q2")[:cut])
        assert journal.done(file, "bea") == {"q1"}
        assert journal.append(file, *work("q2"))
        assert journal.done(file, "bea") == {"q1", "q2"}
        assert len(file.read_bytes().splitlines()) == 2


def test_work_that_does_not_fit_together_is_refused(tmp_path):
    judged, ranked = work()
    for wrong in ((judged[:1], ranked), ([*judged[:1], replace(judged[1], response="x")], ranked)):
        with pytest.raises(JournalError, match="responses"):
            journal.append(tmp_path / "j", *wrong)
    with pytest.raises(JournalError, match="annotator"):
        journal.append(tmp_path / "j", judged, replace(ranked, annotator="al"))
    assert not (tmp_path / "j").exists()


def test_a_broken_line_is_named_and_nothing_is_written_over_it(tmp_path):
    file = tmp_path / "journal.jsonl"
    journal.append(file, *work())
    for broken in (b"no json\n", b"[]\n", b'{"annotator": "x"}\n'):
        file.write_bytes(broken)
        with pytest.raises(JournalError, match="line 1"):
            journal.read(file)
        with pytest.raises(JournalError, match="line 1"):
            journal.append(file, *work())
        assert file.read_bytes() == broken
    row = {"annotator": "a", "query": "q", "judgements": [{"query": "q"}], "ranking": {}}
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(JournalError, match="line 1"):
        journal.read(file)


def _write_many(file: Path, who: str, queries: list[str]) -> None:
    for query in queries:
        journal.append(file, *work(query, who))


def test_processes_that_write_at_once_take_turns(tmp_path):
    file, queries = tmp_path / "journal.jsonl", [f"q{n}" for n in range(25)]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(file, who, queries)) for who in ("bea", "bea", "al")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    _, ranked = journal.read(file)
    assert sorted((one.annotator, one.query) for one in ranked) == sorted(
        (w, q) for w in ("al", "bea") for q in queries
    )


def _write_and_tell(file: Path, told: Path) -> None:
    for number in range(10_000):
        journal.append(file, *work(f"q{number}"))
        with open(told, "a") as stream:
            stream.write(f"q{number}\n")


def test_a_killed_writer_loses_nothing_it_confirmed(tmp_path):
    file, told = tmp_path / "journal.jsonl", tmp_path / "told.txt"
    writer = multiprocessing.get_context("spawn").Process(target=_write_and_tell, args=(file, told))
    writer.start()
    for _ in range(600):
        if told.exists() and len(told.read_text().splitlines()) > 5:
            break
        time.sleep(0.05)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    confirmed = list(told.read_text().split("\n")[:-1])
    assert len(confirmed) > 5
    assert journal.append(file, *work("after"))
    done = [one.query for one in journal.read(file)[1]]
    assert set(confirmed) <= set(done)
    assert len(done) == len(set(done))
