"""Arms beside each other: tables by hand, tests that find what is there, judges asked rightly, costs counted."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import reward_world as world
import torch
from tiny_policies import sharpened

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.data.records import Pair, Query
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import score
from mmrlhf_core.training.reward_dataset import PromptCache
from mmrlhf_study.annotation import judge
from mmrlhf_study.annotation.views import Records
from mmrlhf_study.chapters import reward_model as chapter
from mmrlhf_study.chapters.intervals import Estimate
from mmrlhf_study.evaluation import critiques, reward_bench, reward_study
from mmrlhf_study.evaluation.reward_bench import RewardItem
from mmrlhf_study.miniworld import pool

ITEMS = [RewardItem(q, q, c, "?", "the better one", "worse", names=(f"{q}/0", f"{q}/{k}"))
         for q, c, n in (("a", "long", 2), ("b", "long", 1), ("c", "short", 1)) for k in range(1, n + 1)]  # fmt: skip
GOOD, BAD, TIE = (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)


def test_an_overview_by_hand_and_beside_the_paper():
    # seed 1: a right wrong, b right, c right; seed 2: a right right, b tie, c wrong
    runs = {"arm": [[GOOD, BAD, GOOD, GOOD], [GOOD, GOOD, TIE, BAD]]}
    made = reward_study.overview(ITEMS, runs, 50).set_index(["arm", "category"])
    every = made.loc["arm", "all"]
    assert (every.acc, every.acc_plus) == (5 / 8, pytest.approx((2 + 1) / 6))
    assert (every.acc_worst_seed, every.acc_best_seed, every.ties, every["nan"]) == (0.5, 0.75, 0.5, 0)
    assert (made.loc["arm", "long"].acc, made.loc["arm", "short"].acc) == (4 / 6, 0.5)
    assert every.acc_low <= every.acc <= every.acc_high
    coin = made.loc["chance", "all"]
    assert (coin.acc, coin.acc_plus) == (0.5, pytest.approx((0.25 + 0.5 + 0.5) / 3))
    single = reward_study.overview(ITEMS, {"arm": runs["arm"][:1]}, 50).set_index(["arm", "category"]).loc["arm", "all"]
    assert (single.acc, single.acc_plus) == reward_bench.shares(ITEMS, runs["arm"][0])
    broken = [[(float("nan"), 0.0), *runs["arm"][0][1:]]]
    assert reward_study.overview(ITEMS, {"arm": broken}, 50)["nan"].iloc[-2] == 1
    words = chapter.in_words(reward_study.overview(ITEMS, runs, 50))
    assert list(words.index) == ["arm", "chance"]
    assert words.loc["arm", "short"].startswith("0.50 [")
    shown = chapter.beside_paper(reward_study.overview(ITEMS, {"no critique": [[GOOD] * 4]}, 50))
    assert shown["no critique", "paper"]["all"] == "0.75 / 0.50"
    assert shown["no critique", "MiniWorld"][["all", "safety"]].tolist() == ["1.00 / 1.00", "–"]


def many(n=60):
    return [RewardItem(f"q{k // 3}", f"q{k // 3}", "long", "?", "b", "w") for k in range(n)]


def test_comparisons_find_a_difference_and_none_where_there_is_none():
    found, rng = many(), np.random.default_rng(0)
    strong = [GOOD if draw < 0.9 else BAD for draw in rng.random(60)]
    weak = [GOOD if draw < 0.4 else BAD for draw in rng.random(60)]
    same = [GOOD if draw < 0.9 else BAD for draw in rng.random(60)]
    runs = {"strong": [strong, strong], "weak": [weak], "same": [same], "copy": [strong]}
    asked = [("strong", "weak"), ("strong", "same"), ("strong", "copy")]
    made = reward_study.comparisons(found, runs, asked, 200).set_index(["arm", "against"])
    assert made.p_holm["strong", "weak"] < 0.01
    assert made.low["strong", "weak"] > 0
    assert made.value["strong", "weak"] == pytest.approx(
        np.mean([s == GOOD for s in strong]) - np.mean([w == GOOD for w in weak])
    )
    assert made.p_holm["strong", "same"] > 0.05
    assert (made.value["strong", "copy"], made.p["strong", "copy"]) == (0, 1)
    assert (made.p_holm >= made.p).all()
    assert np.isnan(made.d_z["strong", "copy"])
    assert made.verdict.tolist() == ["better", "not distinguished", "not distinguished"]
    assert reward_study.comparisons(found, runs, [], 200).empty


def test_seeds_are_told_from_items():
    one = [GOOD] * 2 + [BAD] * 2
    made = reward_study.seeds_table(ITEMS, {"steady": [one, one], "single": [one]}).set_index("arm")
    assert list(made.index) == ["steady"]
    assert made.between_seeds["steady"] == made.rest["steady"] == 0 < made.between_items["steady"]
    moving = reward_study.seeds_table(ITEMS, {"moving": [[GOOD] * 4, [BAD] * 4]})
    assert moving.between_seeds[0] > 0 == moving.between_items[0]


# ---------------------------------------------------------------- judges


def test_point_wise_asks_about_each_text_of_a_query_once():
    asked = []

    def by_length(prompts_, texts):
        asked.extend(zip(prompts_, texts, strict=True))
        return [float(len(text)) for text in texts]

    shown = {name: Prompt(name) for name in "abc"}
    scores = reward_study.point_wise(by_length, ITEMS, shown)
    assert scores == reward_bench.by_length(ITEMS)
    assert len(asked) == len(set(asked)) == 6
    assert {prompt.text for prompt, _ in asked} == {"a", "b", "c"}


def test_pair_wise_judges_are_asked_in_both_orders(monkeypatch):
    asked = []

    def always_first(policy, prompts_, pairs):
        asked.extend(pairs)
        return [1] * len(pairs)

    monkeypatch.setattr(reward_study, "prefer", always_first)
    ways = reward_study.pair_wise(None, ITEMS, {name: Prompt(name) for name in "abc"})
    assert ways.summary()["prefers_first"] == 1
    assert reward_bench.shares(ITEMS, ways.scores()) == (0, 0)
    assert asked[:2] == [("the better one", "worse"), ("worse", "the better one")]


@pytest.fixture(scope="module")
def base():
    return sharpened(world.fresh())


def test_untrained_judges_read_the_next_word_whatever_the_batch(base):
    asked = [Prompt("is there a circle ?"), Prompt("how many red shapes are there ?"), Prompt("is there a circle ?")]
    said = ["yes", "the answer is 2 .", "no"]
    points = judge.rate(base, asked, said)
    assert points == pytest.approx([judge.rate(base, [a], [s])[0] for a, s in zip(asked, said, strict=True)], abs=1e-5)
    assert all(1 <= value <= 5 for value in points)
    assert len(set(points)) == 3
    logp = judge.next_words(base, [judge.rating(base.processor, asked[0], "yes")], judge.RATINGS)
    assert logp.exp().sum().item() == pytest.approx(1)
    assert points[0] == pytest.approx((logp[0].exp() * torch.arange(1, 6)).sum().item(), abs=1e-5)
    pairs = [("yes", "no"), ("no", "yes")]
    for number, way in enumerate(judge.prefer(base, asked[:2], pairs)):
        told = judge.comparison(base.processor, asked[number], *pairs[number])
        first, second = judge.next_words(base, [told], judge.COMPARED_PLACES)[0].tolist()
        assert way == (1 if first > second else 2)
    with pytest.raises(ValueError, match="begin with the same token"):
        judge.next_words(base, asked, ("1", "1"))
    with pytest.raises(ValueError, match=r"<\|im_end\|>"):
        judge.rate(base, asked[:1], ["<|im_end|>"])


# ---------------------------------------------------------------- critiques and their cost


def scored(n=2):
    texts = ("right .", "at b3 wrong . answer wrong .")
    return score.Scored("q", "q/0", 2.0, (1.0, 3.0)[:n], texts[:n], (True, False)[:n], False, "m")


def test_the_mean_of_the_first_critiques():
    (one,) = reward_study.averaged([scored()], 1)
    assert (one.score, one.scores, one.critiques, one.finished) == (1.0, (1.0,), ("right .",), (True,))
    (both,) = reward_study.averaged([scored()], 2)
    assert both == scored()
    with pytest.raises(ValueError, match="2 critiques, not 3"):
        reward_study.averaged([scored()], 3)


def test_what_a_score_takes_by_hand(base, tmp_path):
    pool.write_pictures(world.made()[0].queries, tmp_path)
    data, model = world.data()[:2], reward.create(base)
    asked = PromptCache(base.processor, model.form, tmp_path, 3)
    done = score.score(model, score.works(data, tmp_path, 3), score.CritiqueDecoding(max_new_tokens=4))
    found = reward_study.effort(model, data, done, asked)
    words = reward_study.critique_tokens(model, done)
    texts = [len(set(one.responses.values())) for one in data]
    first = {one.response: one for one in done}
    read = written = 0
    for one in data:
        prompt, prefix, _ = asked(one)
        for name in {text: name for name, text in one.responses.items()}.values():
            own = len(reward.opening(base.processor, model.form, prompt, one.responses[name]))
            critique = len(prompts.literal(base.processor, first[name].critiques[0])) + 1
            assert words[one.query.id, name] == critique
            read, written = read + 2 * own + critique, written + critique
        read += 2 * len(prefix)
    n = sum(texts)
    assert (found["tokens read"], found["tokens written"]) == (pytest.approx(read / n), pytest.approx(written / n))
    layers = sum(w.numel() for w in base.model.model.language_model.layers.parameters())
    layers += base.model.model.language_model.norm.weight.numel()
    head = base.model.get_output_embeddings().weight.numel()
    assert found["GFLOP"] == pytest.approx(2 * (layers * (read + written) + head * written) / n / 1e9)
    plain = reward.create(base, critique=False)
    silent = reward_study.effort(plain, data, score.score(plain, score.works(data, tmp_path, 3)), asked)
    assert silent["tokens written"] == 0
    assert silent["GFLOP"] < found["GFLOP"]
    given = score.score(
        model, score.works(data, tmp_path, 3, {name: "right ." for one in data for name in one.responses})
    )
    assert reward_study.effort(model, data, given, asked)["tokens written"] == 0
    some, spent = reward_study.timed(plain, score.works(data, tmp_path, 3), score.CritiqueDecoding(), 8, "timed")
    assert [one.response for one in some] == [name for one in data for name in one.responses]
    assert spent > 0


# ---------------------------------------------------------------- said


@pytest.fixture(scope="module")
def tables():
    """Overview, comparisons, critique quality and costs of three variants."""
    runs = {"no critique": [[GOOD, BAD, GOOD, GOOD]], "expanded reasons": [[GOOD] * 4], "longer response": [[BAD] * 4]}
    overview = reward_study.overview(ITEMS, runs, 50)
    rows = overview[overview.category == "all"].rename(columns={"arm": "way"})
    return {
        "overview": overview,
        "compared": reward_study.comparisons(ITEMS, runs, [("expanded reasons", "no critique")], 50),
        "quality": pd.DataFrame(
            {"writer": ["a", "b"], "measure": "faults named", "value": 0.5, "low": 0.4, "high": 0.6}
        ),
        "costs": rows.assign(**{"tokens written": [0.0, 3.0, 9.0, 1.0], "GFLOP": [1.0, 1.5, 2.5, 2.0], "ms": 0.1}),
    }


def test_headlines_quote_the_paper_for_its_own_variants_only(tables):
    heads = chapter.headlines(tables["overview"], Estimate(0.2, 0.25, 0.3))
    assert not [head for head in heads if "longer" in head.label]
    assert all(number in heads[0].paper for number in ("0.75", "0.50", "Tab. 4"))
    assert all(head.low <= head.value <= head.high and head.world == "MiniWorld" for head in heads)


def test_sentences_carry_the_numbers_and_verdicts_of_the_tables(tables):
    compared, error = tables["compared"], Estimate(0.2, 0.1, 0.3)
    rest = {"quality": tables["quality"], "costs": tables["costs"], "other_pictures": compared}
    text = "\n".join(chapter.sentences(tables["overview"], compared, error, tables["overview"][:1], **rest))
    for parts in (
        ("longer response: ACC 0.00 [0.00, 0.00]", "below ½"),
        ("expanded reasons: ACC 1.00", "above ½"),
        ("expanded reasons minus no critique", "+0.25", "not distinguished"),
        ("faults named", "a 0.50 [0.40, 0.60]", "b 0.50 [0.40, 0.60]"),
        ("longer response takes 2.5 times", "of no critique", "ACC: 0.00 against 0.75"),
    ):
        assert any(all(part in line for part in parts) for line in text.splitlines()), parts
    tied = reward_study.overview(ITEMS, {"judge": [[TIE] * 4]}, 50)
    (judged, *_) = chapter.sentences(tied, compared[:0], error, tied[:0], **rest | {"other_pictures": compared[:0]})
    assert "100%" in judged
    assert "below ½" in judged, "ties are wrong"


@pytest.mark.parametrize(
    ("value", "verdict", "change"),
    [(0.2, "better", "-0.20 [-0.30, -0.10]; it falls"), (-0.2, "worse", "+0.20 [+0.10, +0.30]; it rises"),
     (0.0, "not distinguished", "+0.00 [-0.10, +0.10]; no change is shown")],
)  # fmt: skip
def test_the_change_with_other_pictures_has_the_sign_of_the_change(tables, value, verdict, change):
    head = {"arm": "raw reasons, own pictures", "against": "raw reasons, other pictures", "verdict": verdict}
    row = pd.DataFrame([head | {"value": value, "low": value - 0.1, "high": value + 0.1}])
    overview, compared = tables["overview"][:0], tables["compared"][:0]
    rest = overview, row, tables["quality"][:0], tables["costs"]
    control, _ = chapter.sentences(overview, compared, Estimate(0.2, 0.1, 0.3), *rest)[1:]
    assert control.startswith("Control: raw reasons: ")
    assert change in control


def test_metrics_are_plain_numbers_without_clock_times(tables):
    compared, overview = tables["compared"], tables["overview"]
    rest = (tables["quality"], tables["costs"], pd.Series({"test": np.int64(4)}))
    plain = chapter.metrics(overview, compared, overview[:1], compared, *rest)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert "ms" not in plain["costs"]["no critique"]
    row = plain["comparisons"]["expanded reasons"]["no critique"]
    assert row.keys() == {"value", "low", "high", "d_z", "p", "p_holm"}


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("better", "confirmed"), ("worse", "refuted"), ("not distinguished", "not distinguished")]
)
def test_predictions_of_the_paper_are_held_against_the_verdicts(verdict, outcome):
    row = {"value": 0.1, "p_holm": 0.01}
    turned = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    compared = pd.DataFrame([
        {"arm": "expanded reasons", "against": "raw reasons", "verdict": verdict} | row,
        {"arm": "expanded reasons", "against": "given critiques", "verdict": turned} | row,
        {"arm": "expanded reasons", "against": "longer response", "verdict": verdict} | row,
    ])  # fmt: skip
    held = chapter.predictions(compared)
    assert held.outcome.tolist() == [outcome] * 2
    assert held["difference here"].tolist() == [0.1, -0.1]
    assert held["difference in the paper"].tolist() == pytest.approx([0.06, 0.08])  # Table 4: 0.79, 0.85, 0.93


def test_what_the_test_is_asked_with(tmp_path):
    data = world.data()
    pool.write_pictures(world.made()[0].queries, tmp_path)
    made = reward_study.work_of(data, tmp_path, 3, "expanded", 0)
    assert list(made) == ["test", "other pictures", "given critiques", "true critiques"]
    assert all(one.critiques is None for name in ("test", "other pictures") for one in made[name])
    assert [one.critiques for one in made["given critiques"]] == [one.reasons("expanded") for one in data]
    assert {one.query for one in made["other pictures"]} < {one.query for one in made["test"]}
    first = next(iter(data[0].responses))
    gap = replace(data[0], critiques={k: v for k, v in data[0].critiques.items() if k != first})
    assert "given critiques" not in reward_study.work_of([gap], tmp_path, 3, "raw", 0)
    away = replace(data[0], query=replace(data[0].query, source="file"))
    assert "true critiques" not in reward_study.work_of([away], tmp_path, 3, "raw", 0)


def test_other_pictures_are_compared_on_their_own_pairs():
    pairs = [Pair(item.query, *item.names) for item in ITEMS]
    swapped = [score.Scored(q, name, value, (value,), ("",), (True,), False)
               for q, name, value in (("a", "a/0", 0.0), ("a", "a/1", 1.0), ("a", "a/2", -1.0))]  # fmt: skip
    some, runs = reward_study.beside_other_pictures(ITEMS, {"arm": [GOOD, BAD, TIE, GOOD]}, {"arm": swapped}, pairs)
    assert some == ITEMS[:2]
    assert runs == {"arm, own pictures": [[GOOD, BAD]], "arm, other pictures": [[(0.0, 1.0), (0.0, -1.0)]]}
    assert reward_study.pooled(some, [[GOOD, BAD], [TIE, TIE]]) == ([GOOD, BAD, TIE, TIE], ["a"] * 4)


def test_cards_show_scores_and_critiques_as_text():
    found, pairs = world.made()
    known = Records(found.queries, found.responses)
    pair = pairs[0]
    two = [replace(scored(1), query=pair.query, response=name, score=value, critiques=("<b>wrong</b> .",))
           for name, value in ((pair.chosen, 1.5), (pair.rejected, -2.0))]  # fmt: skip
    shown = chapter.cards([pair], two, known, "nowhere")
    assert "&lt;b&gt;wrong&lt;/b&gt; . → score +1.50" in shown
    assert "score -2.00" in shown
    assert "<b>wrong" not in shown


def test_names_below_a_figure_do_not_run_into_each_other():
    rows = pd.DataFrame(
        [(writer, name, 0.5, 0.4, 0.6) for name in critiques.CRITIQUE_MEASURES for writer in ("one", "two")],
        columns=["writer", "measure", "value", "low", "high"],
    )
    figure = chapter.critiques_figure(rows)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == len(critiques.CRITIQUE_MEASURES)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_parts_and_slices_of_annotated_queries():
    topical = Annotated(Query("a", "?", "text", (), "long", topic="shapes-sand"), {}, {}, (Pair("a", "x", "y"),))
    classed = Annotated(Query("b", "?", "text", (), "short"), {}, {}, (Pair("b", "x", "y", split="test"),))
    data = [topical, classed]
    assert reward_study.part(data, "test") == [classed]
    assert reward_study.about(data, "shapes") == [topical]
    assert reward_study.about(data, "short") == [classed]
    assert reward_study.about(data, "long") == []
