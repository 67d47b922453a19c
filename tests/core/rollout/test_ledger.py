"""What is in the ledger stays there, whatever else the file holds."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.rollout.ledger import Ledger


def test_entries_are_found_again_in_a_new_process(tmp_path):
    first = Ledger(tmp_path / "new/folder/a.jsonl")
    first.add("k", {"text": "ünïcode \n ✓", "n": 1})
    first.add("l", [1.5, True, None])
    assert (
        Ledger(tmp_path / "new/folder/a.jsonl").entries
        == first.entries
        == {"k": {"text": "ünïcode \n ✓", "n": 1}} | {"l": [1.5, True, None]}
    )


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, 200), noise=st.binary(max_size=20))
def test_a_file_cut_or_spoilt_at_its_end_keeps_its_whole_lines(tmp_path_factory, cut, noise):
    file = tmp_path_factory.mktemp("ledger") / "a.jsonl"
    writer = Ledger(file)
    for number in range(4):
        writer.add(str(number), {"text": "x" * number})
    data = file.read_bytes()[: max(0, len(file.read_bytes()) - cut)]
    whole = {row["key"] for row in map(json.loads, data[: data.rfind(b"\n") + 1].splitlines())}
    file.write_bytes(data + noise.replace(b"\n", b" "))
    again = Ledger(file)
    assert whole <= again.entries.keys() <= {"0", "1", "2", "3"}
    again.add("new", "é")
    assert Ledger(file).entries == again.entries


def test_lines_of_another_kind_are_no_entries(tmp_path):
    (tmp_path / "a.jsonl").write_text('null\n[1]\n{"key": "a"}\n{"key": "b", "value": 1, "more": 2}\nnonsense\n')
    assert Ledger(tmp_path / "a.jsonl").entries == {}
