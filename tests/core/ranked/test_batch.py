"""The packed sequence, checked by hand and against naive loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.models import prompts
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked import batch


def test_two_queries_packed_by_hand():
    first = batch.RankedQuery(torch.tensor([7, 8, 9]), {}, [torch.tensor([1, 2]), torch.tensor([3])], [(1, 0)])
    mask = [torch.tensor([True, False])]
    second = batch.RankedQuery(torch.tensor([5, 6]), {}, [torch.tensor([4, 4])], [], mask)
    tree = batch.build_tree([first, second], multiple=4)
    # place            0  1  2  3  4  5  6  7  8  9  10 11
    expected = {
        "ids": [7, 8, 9, 1, 2, 3, 5, 6, 4, 4, 0, 0],
        "query_of": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1],
        "branch_of": [0, 0, 0, 1, 1, 2, 0, 0, 1, 1, 0, 0],
        "offset": [0, 1, 2, 0, 1, 0, 0, 1, 0, 1, 0, 0],
        "state_index": [2, 3, 2, 7, 8],
        "targets": [1, 2, 3, 4, 4],
        "response_of": [0, 0, 1, 2, 2],
        "counted": [True, True, True, True, False],
        "ends": [4, 5, 9],
        "query_of_response": [0, 0, 1],
        "pairs": [[1, 0]],
        "query_of_pair": [0],
    }
    for name, values in expected.items():
        assert getattr(tree, name).tolist() == values, name
    assert tree.prefix_lengths == (3, 2)
    assert tree.response_lengths == ((2, 1), (2,))
    assert tree.n_responses == 3
    assert tree.shared_tokens == 3


queries = st.builds(
    lambda prefix, responses, data: batch.RankedQuery(
        torch.tensor(prefix),
        {},
        [torch.tensor(response) for response in responses],
        [(i, j) for i in range(len(responses)) for j in range(len(responses)) if i != j and data.random() < 0.4],
    ),
    st.lists(st.integers(0, 50), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=7), min_size=1, max_size=16),
    st.randoms(use_true_random=False),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(queries, min_size=1, max_size=4), st.integers(1, 16))
def test_every_token_and_pair_can_be_read_back(chosen, multiple):
    tree = batch.build_tree(chosen, multiple)
    assert len(tree.ids) % multiple == 0
    assert len(tree.ids) - sum(query.size for query in chosen) < multiple
    numbered = [(q, response) for q, query in enumerate(chosen) for response in query.responses]
    assert tree.n_responses == len(numbered)
    start = {q: sum(query.size for query in chosen[:q]) for q in range(len(chosen))}
    for m, (q, response) in enumerate(numbered):
        mine = tree.response_of == m
        assert torch.equal(tree.targets[mine], response)
        before = tree.state_index[mine]
        prefix = chosen[q].prefix
        assert before[0] == start[q] + len(prefix) - 1
        assert tree.ids[before[0]] == prefix[-1]
        assert torch.equal(tree.ids[before[1:]], response[:-1])
        assert tree.ids[tree.ends[m]] == response[-1]
        assert tree.query_of_response[m] == q
    pairs = [(q, *pair) for q, query in enumerate(chosen) for pair in query.pairs]
    first = [sum(len(query.responses) for query in chosen[:q]) for q in range(len(chosen))]
    assert tree.pairs.tolist() == [[first[q] + w, first[q] + loser] for q, w, loser in pairs]
    assert tree.query_of_pair.tolist() == [q for q, _, _ in pairs]


def test_prefix_and_response_are_the_tokens_of_the_whole_conversation(llava):
    ask = {"role": "user", "content": [{"type": "text", "text": "is there a red circle ."}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "yes a red\ncircle ."}]}
    whole = llava.processor.apply_chat_template([ask, answer])
    prefix, media = batch.split_inputs(prompts.encode(llava.processor, [Prompt("is there a red circle .")]))
    response = batch.encode_response(llava.processor, "yes a red\ncircle .")
    both = torch.cat([prefix, response]).tolist()
    assert both == llava.processor.tokenizer(whole, add_special_tokens=False).input_ids[: len(both)]
    assert media == {}


def test_special_tokens_written_in_a_response_stay_text(llava):
    response = batch.encode_response(llava.processor, "a <image> <|im_end|>")
    assert llava.processor.image_token_id not in response.tolist()
    assert response.tolist().count(llava.processor.tokenizer.eos_token_id) == 1
    assert llava.processor.decode(response[:-1]) == "a <image> <|im_end|>"


def test_moving_a_batch_moves_every_tensor(llava):
    tree = batch.build_tree([llava.query("one", [3, 2])]).to("meta")
    tensors = [value for value in vars(tree).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 12
    assert all(tensor.is_meta for tensor in [*tensors, *tree.media[0].values()])


one = torch.tensor([1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: batch.RankedQuery(one, {}, [], []), "at least one response"),
        (lambda: batch.RankedQuery(one[:0], {}, [one], []), "got 0 prefix tokens"),
        (lambda: batch.RankedQuery(one, {}, [one, one[:0]], []), r"responses of \[1, 0\] tokens"),
        (lambda: batch.RankedQuery(one, {}, [one, one], [(0, 2)]), r"Pair \(0, 2\) must name two different responses"),
        (lambda: batch.RankedQuery(one, {}, [one, one], [(1, 1)]), r"Pair \(1, 1\) must name two different responses"),
        (lambda: batch.RankedQuery(one, {}, [one], [], [torch.ones(2, dtype=torch.bool)]), "one mask per response"),
        (lambda: batch.build_tree([]), "at least one query"),
    ],
)
def test_wrong_queries_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
