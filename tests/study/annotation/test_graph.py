"""Pairs as a graph: contradictions and cycles are reported, and only pairs of a ranking give one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.data.records import Pair, Query
from mmrlhf_study.annotation import graph
from mmrlhf_study.annotation.graph import Conflict


def test_shared_ids_contradictions_and_cycles_are_reported():
    wins = {"q1": ["ab", "ba", "ac"], "q2": ["xy", "yz", "zx", "zw"]}
    pairs = [Pair(query, *names) for query, rows in wins.items() for names in rows]
    queries = [Query(name, "?", "text", ()) for name in ("q1", "q2", "q1 @2")]
    assert graph.conflicts(queries, pairs) == [
        Conflict("shared id", "q1 @2", ()),
        Conflict("contradiction", "q1", ("a", "b")),
        Conflict("cycle", "q2", ("x", "y", "z")),
    ]
    assert graph.ranking(pairs[:3]) is None
    assert graph.ranking([Pair("q", *names) for names in ("ab", "ac", "bc")]).ranks == (1, 2, 3)


edges = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")).filter(lambda e: e[0] != e[1]), unique=True
)


@settings(max_examples=150, deadline=None)
@given(edges=edges)
def test_conflicts_are_found_as_a_naive_walk_finds_them(edges):
    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = {b for a, b in edges if a == waiting[-1]} - found
            waiting.pop()
            found |= new
            waiting += sorted(new)
        return found

    rings = {tuple(sorted(b for b in reached(a) if a in reached(b))) for a in "abcde" if a in reached(a)}
    both = {tuple(sorted(edge)) for edge in edges if edge[::-1] in edges}
    conflicts = graph.conflicts([], [Pair("q", a, b) for a, b in edges])
    assert {c.responses for c in conflicts if c.kind == "cycle"} == {ring for ring in rings if len(ring) > 2}
    assert {c.responses for c in conflicts if c.kind == "contradiction"} == both
