"""Names that hang together, against scipy's connected components."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmrlhf_study.curation import links


def test_chains_join_and_names_alone_stay_alone():
    assert links.heads([["c", "b"], ["d"], ["b", "a"]]) == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert links.heads([]) == {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=8))
def test_heads_are_the_first_of_each_component(together):
    edges = [(names[0], name) for names in together for name in names]
    found = links.heads([str(name) for name in names] for names in together)
    assert set(found) == {str(name) for edge in edges for name in edge}
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    label = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(10, 10)), directed=False)[1]
    for name, head in found.items():
        assert head == str(label.tolist().index(label[int(name)]))
