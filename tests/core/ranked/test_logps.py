"""Log-probabilities and gradients of a tree equal those of separate full sequences; nothing leaks."""

from dataclasses import replace

import plain_layouts as plain
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.ranked import attention, batch, logps


def gradients(model, loss):
    """All gradients of `loss` in one vector; parameters without one count as zero."""
    model.zero_grad()
    loss.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([grad.flatten() for grad in grads]).clone()


def mixed_queries(any_family):
    """Ragged K and R, clips of two lengths, several pictures, tiles, and text, all in one batch."""
    shapes = [("one", [5, 9, 3]), ("two", [4]), ("clip4", [2, 7, 1, 1, 6]), ("large", [1, 3]), ("text", [4, 4])]
    shapes += [("clip6", [3, 2]), ("one", [1] * 16)]
    return [any_family.query(kind, lengths, seed) for seed, (kind, lengths) in enumerate(shapes)]


def rows_of(queries):
    return [(query, k) for query in queries for k in range(len(query.responses))]


def separate(model, queries):
    """Plain log-probabilities [M], each response in its own full sequence without padding."""
    return torch.cat([plain.full_logps(model, [row]) for row in rows_of(queries)])


def test_parity_in_float64(any_family, all_double):
    queries = mixed_queries(any_family)
    model = any_family.model().train()
    expected = separate(model, queries)
    weight = torch.randn(len(expected), generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    reference = gradients(model, (expected * weight).sum())
    attention.prepare(model)
    for multiple, chunk in ((1, 1000), (64, 5)):
        tree = batch.build_tree(queries, multiple)
        ours = logps.response_logps(model, tree, chunk)
        assert (ours.sums - expected).abs().max() <= 1e-9
        error = gradients(model, (ours.sums * weight).sum()) - reference
        assert error.norm() / reference.norm() <= 1e-9
        assert error.abs().max() / reference.abs().max() <= 1e-9
    alone = torch.cat([logps.response_logps(model, batch.build_tree([q])).sums for q in queries])
    assert (alone - expected).abs().max() <= 1e-9


def test_parity_in_float32(any_family):
    queries = mixed_queries(any_family)
    model = any_family.model(torch.float32).train()
    expected = separate(model, queries)
    reference = gradients(model, expected.mean())
    ours = logps.response_logps(attention.prepare(model), batch.build_tree(queries)).sums
    lengths = torch.tensor([len(response) for query in queries for response in query.responses])
    assert ((ours - expected).abs() / lengths).max() <= 1e-5
    error = gradients(model, ours.mean()) - reference
    assert error.norm() / reference.norm() <= 1e-5


def test_the_plain_layouts_agree_with_and_without_padding(any_family):
    rows = rows_of([any_family.query("one", [5, 2, 8]), any_family.query("large", [3], seed=1)])
    model = any_family.model()
    with torch.no_grad():
        expected = torch.cat([plain.full_logps(model, [row]) for row in rows])
        for ours in (plain.full_logps(model, rows), plain.once_logps(model, rows, chunk=4)):
            assert (ours - expected).abs().max() <= 1e-9
        # padding in front moves the positions, and rotary angles are fp32 in any model
        assert (plain.full_logps(model, rows, left=True) - expected).abs().max() <= 1e-6


def test_no_response_sees_a_sibling_and_every_response_sees_the_prefix(any_family):
    query, other = any_family.query("one", [4, 6, 3, 5]), any_family.query("large", [2, 2], seed=1)
    model = attention.prepare(any_family.model())

    def per_token(changed, neighbour=other):
        with torch.no_grad():
            return logps.response_logps(model, batch.build_tree([changed, neighbour])).tokens

    tree = batch.build_tree([query, other])
    before = per_token(query)
    for k, response in enumerate(query.responses):
        for place in range(len(response)):
            moved = response.clone()
            moved[place] = (moved[place] + 1) % 40
            responses = [moved if number == k else r for number, r in enumerate(query.responses)]
            after = per_token(replace(query, responses=responses))
            mine = (tree.response_of == k).nonzero().flatten()
            changed = (after != before).nonzero().flatten()
            assert set(changed.tolist()) <= set(mine[place:].tolist()), "a sibling or an earlier token changed"
            assert (after - before)[mine[place:]].abs().min() > 1e-9
    text = [place for place, token in enumerate(query.prefix.tolist()) if token == query.prefix[-3]]
    for place in (0, text[0], len(query.prefix) - 1):
        prefix = query.prefix.clone()
        prefix[place] = 5
        difference = (per_token(replace(query, prefix=prefix)) - before).abs()
        own = tree.query_of_response[tree.response_of] == 0
        assert difference[own].min() > 1e-9, "a response lost the prefix"
        assert difference[~own].max() == 0, "another query saw the prefix"
    media = {**query.media, "pixel_values": query.media["pixel_values"].flip(0) * 0.5}
    assert (per_token(replace(query, media=media)) - before).abs()[own].min() > 1e-9, "a response lost the picture"


def test_positions_restart_behind_the_prefix(any_family):
    query = any_family.query("two", [3, 2])
    model = any_family.model()
    tree = batch.build_tree([query, any_family.query("text", [2], seed=1)], multiple=8)
    ours = logps.positions(model, tree)[..., 0, :].reshape(-1, len(tree.ids))
    first = len(query.prefix)
    largest = ours[:, :first].max()
    assert (ours[:, first : first + 5] - largest == torch.tensor([1, 2, 3, 1, 2])).all()
    assert (largest < first - 1) == (any_family.name == "qwen2_5_vl"), "M-RoPE positions are shorter than the prefix"
    assert (ours[:, query.size] == 0).all()


def test_head_never_sees_more_rows_than_the_chunk(text_model, make_text_query):
    tree = batch.build_tree([make_text_query(9, [5, 7, 4]), make_text_query(3, [6], seed=1)])
    attention.prepare(text_model).train()
    rows = []
    text_model.lm_head.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    reference = gradients(text_model, logps.response_logps(text_model, tree, chunk=100).sums.sum())
    assert rows == [22]
    for chunk, calls, most in ((5, None, 5), (5, 9, 3), (1, None, 1), (22, 30, 1)):
        rows.clear()
        ours = gradients(text_model, logps.response_logps(text_model, tree, chunk, calls).sums.sum())
        assert max(rows) == most
        assert len(rows) == 2 * (calls or -(-22 // chunk)), "once forward, once again in backward"
        torch.testing.assert_close(ours, reference, atol=1e-12 * float(reference.norm()), rtol=0)
    with pytest.raises(ValueError, match="22 tokens in chunks of 5 need 5 head calls, not 4"):
        logps.response_logps(text_model, tree, chunk=5, calls=4)


def test_log_sum_exp_is_fp32_for_bf16_weights(make_text_query):
    head = torch.nn.Linear(8, 4000, bias=False).bfloat16()
    states, targets = torch.randn(6, 8).bfloat16(), torch.arange(6)
    tokens = logps.token_logps(head, states, targets)
    assert tokens.dtype == torch.float32
    expected = head(states).double().log_softmax(-1)[torch.arange(6), targets]
    assert (tokens - expected).abs().max() < 1e-5


def test_sums_of_long_responses_are_not_rounded(text_model, make_text_query):
    """In fp32 a sum of 1,500 tokens moves in steps of 5e-4, and so would every loss made of it."""
    attention.prepare(text_model.float())
    out = logps.response_logps(text_model, batch.build_tree([make_text_query(4, [1500, 3])]))
    assert (out.tokens.dtype, out.sums.dtype) == (torch.float32, torch.float64)
    assert out.sums[0] < -4096
    assert out.sums[0].item() == pytest.approx(out.tokens[:1500].double().sum().item(), abs=1e-8)


def test_counted_tokens_only_enter_the_sums(text_model, make_text_query):
    query = make_text_query(6, [4, 3])
    masks = [torch.tensor([True, False, True, True]), torch.tensor([False, False, False])]
    attention.prepare(text_model)
    out = logps.response_logps(text_model, batch.build_tree([replace(query, counted=masks)]))
    whole = logps.response_logps(text_model, batch.build_tree([query]))
    assert torch.equal(out.tokens, whole.tokens)
    torch.testing.assert_close(out.sums[0], whole.tokens[[0, 2, 3]].sum())
    assert out.sums[1] == 0
    torch.testing.assert_close(out.sums, plain.full_logps(text_model, rows_of([replace(query, counted=masks)])))


def test_states_at_the_ends_are_those_of_full_sequences(any_family):
    """What a reward head reads: the state at the last token of each branch."""
    query = any_family.query("one", [5, 2, 8])
    model = any_family.model()
    with torch.no_grad():
        inputs = [plain.full_sequences(model, [(query, k)]) for k in range(3)]
        expected = torch.stack([model.base_model(**one).last_hidden_state[0, -1] for one in inputs])
        assert (plain.end_states(model, rows_of([query])) - expected).abs().max() <= 1e-9 * expected.abs().max()
        tree = batch.build_tree([query])
        states = logps.hidden_states(attention.prepare(model), tree)[tree.ends]
    assert (states - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_gradient_checkpointing_changes_nothing(any_family):
    queries = [any_family.query("one", [5, 2]), any_family.query("clip4", [3, 3], seed=1)]
    model = attention.prepare(any_family.model().train())
    tree = batch.build_tree(queries)
    reference = gradients(model, logps.response_logps(model, tree).sums.sum())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    ours = gradients(model, logps.response_logps(model, tree).sums.sum())
    assert (ours - reference).norm() <= 1e-9 * reference.norm()


def test_other_text_models_of_the_list():
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**sizes, **heads)).double().eval()
    ids = torch.randint(1, 61, (30,))
    query = batch.RankedQuery(ids[:12], {}, [ids[12:19], ids[19:23], ids[23:]], [])
    with torch.no_grad():
        expected = separate(model, [query])
        ours = logps.response_logps(attention.prepare(model), batch.build_tree([query])).sums
    assert (ours - expected).abs().max() <= 1e-9


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 14), st.lists(st.integers(1, 9), min_size=1, max_size=16), st.randoms()),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 3),
)
def test_margins_of_any_preference_graph_in_batches_of_any_size(drawn, size):
    model, maker = _TEXT
    queries = []
    for seed, (prefix, lengths, random) in enumerate(drawn):
        every = [(i, j) for i in range(len(lengths)) for j in range(len(lengths)) if i != j]
        queries.append(maker(prefix, lengths, seed, random.sample(every, random.randint(0, len(every)))))
    ours = []
    with torch.no_grad():
        for start in range(0, len(queries), size):
            tree = batch.build_tree(queries[start : start + size])
            sums = logps.response_logps(model, tree, chunk=7).sums
            ours.append(sums[tree.pairs[:, 0]] - sums[tree.pairs[:, 1]])
        naive = [separate(model, [query]) for query in queries]
    expected = [one[w] - one[loser] for one, query in zip(naive, queries, strict=True) for w, loser in query.pairs]
    ours = torch.cat(ours)
    assert len(ours) == len(expected)
    assert not expected or (ours - torch.stack(expected)).abs().max() <= 1e-9


@pytest.fixture(autouse=True)
def _text(text_model, make_text_query):
    global _TEXT
    _TEXT = (attention.prepare(text_model), make_text_query)
