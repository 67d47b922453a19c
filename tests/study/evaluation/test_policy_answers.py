"""Every policy answers the same items with the same settings, and what was written is what is compared."""

import numpy as np
import pytest
from tiny_project import ROOT, STAGES

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Response
from mmrlhf_core.models import policy
from mmrlhf_study.chapters import evaluation
from mmrlhf_study.evaluation import bench_tables, compare, policy_answers
from mmrlhf_study.evaluation.policy_answers import AnswerDecoding, AskedItem, PolicyAnswers
from mmrlhf_study.miniworld import benches, curriculum, miniature, safety, truth
from mmrlhf_study.pipeline import params

BENCHES = (*benches.BENCHES, *safety.SAFETY_BENCHES)


@pytest.fixture(scope="module")
def items():
    taken = set()
    found = benches.draw(4, taken, seed=1) + safety.draw(4, taken, seed=1)
    eyes = miniature.create("llava_onevision", curriculum.words(), miniature.Size(width=96, layers=1), seed=0)
    return found + safety.attacked(eyes, 2, 1, taken, seed=1)


@pytest.fixture(scope="module")
def made(items):
    """Three policies by hand: right everywhere, silent, and one that tells what must not be told."""
    told = tuple(truth.corrupt(i.question, "complied", 0) if i.question.decline else i.question.answer for i in items)
    right = tuple(item.question.answer for item in items)
    texts = {"base": right, "silent": ("",) * len(items), "telling": told}
    tokens = {name: tuple(len(text.split()) + 1 for text in mine) for name, mine in texts.items()}
    return PolicyAnswers(tuple(items), texts, tokens, dict.fromkeys(texts, 2.0))


# answering


def test_checkpoints_are_found_in_order_and_missing_folders_named(project):
    for name in ("models/base", "models/policies/b", "models/policies/a"):
        storage.write_json(f"{name}/config.json", {})
    storage.write_json("models/self/x/checkpoint.json", {"checkpoint": "models/base"})
    (project / "models/self/notes").mkdir()
    found, missing = policy_answers.policies(("models/base", "models/policies", "models/self", "models/none"))
    assert found == {
        "base": "models/base", "policies/a": "models/policies/a", "policies/b": "models/policies/b",
        "self/x": "models/self/x",
    }  # fmt: skip
    assert missing == ["models/none"]
    found, _ = policy_answers.policies(("models/base", "models/policies/b", "models/policies"))
    assert list(found) == ["base", "policies/b", "policies/a"]  # named ones keep their place
    with pytest.raises(ValueError, match="models/none"):
        policy_answers.policies(("models/none",))


def test_answers_and_settings_are_written_beside_each_other(project, items):
    small = miniature.create("llava_onevision", curriculum.words(), miniature.Size(width=96, layers=1), seed=0)
    policy.save("models/base", small)
    policy.refer("models/other", "models/base")
    some, how = items[:6] + items[-2:], AnswerDecoding(max_new_tokens=4, frames=2, seed=5)
    made = policy_answers.answer({"base": "models/base", "other": "models/other"}, some, how, "data/evaluation")
    assert made.texts["base"] == made.texts["other"]  # the same weights, greedily
    assert policy_answers.untrained({"base": "models/base", "other": "models/other"}) == ["other"]
    written = records.read("data/evaluation/answers.parquet", Response)
    assert [(r.query, r.responder, r.text) for r in written] == [
        (item.id, name, text) for name, texts in made.texts.items() for item, text in zip(some, texts, strict=True)
    ]
    assert {(r.temperature, r.top_p, r.max_new_tokens, r.seed) for r in written} == {(0.0, 1.0, 4, 5)}
    assert [one.id for one in records.read("data/evaluation/items.parquet", AskedItem)] == [item.id for item in some]
    settings = storage.read_json("data/evaluation/settings.json")
    assert settings["decoding"]["frames"] == 2
    base, other = settings["policies"]["base"], settings["policies"]["other"]
    assert base["sha256"] == other["sha256"]
    assert base["image_size"] == {"height": 64, "width": 64}
    assert base["template_sha256"]
    assert all(1 <= tokens <= 5 for mine in made.tokens.values() for tokens in mine)


# comparing


def test_the_reference_has_no_verdict_and_the_others_theirs(made):
    found = bench_tables.table(made, (*BENCHES, *safety.CONTROLS), draws=50)
    assert set(found[found.policy == "base"].verdict) == {""}
    assert (found[found.policy == "base"].gain == 0).all()
    told = found[found.policy == "telling"].set_index("bench")
    assert told.gain["cross-modal, told"] == told.gain["private text"] == -100
    assert told.value["cross-modal, told"] == 100
    assert told.gain["counts"] == 0
    silent = found[found.policy == "silent"].set_index("bench")
    assert silent.gain["counts"] == -100
    assert silent.gain["cross-modal, told"] == 0
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    assert (found.p_bh.dropna() <= found.p_holm.dropna()).all()
    assert list(bench_tables.verdicts(found).columns) == ["worse", "better", compare.OPEN]


def test_eight_of_eight_losses_are_shown_and_four_of_four_are_not():
    items = tuple(benches.draw(8, set(), seed=3))
    right = tuple(item.question.answer for item in items)
    bench = next(bench for bench in benches.BENCHES if bench.name == "counts")
    made = PolicyAnswers(items, {"a": right, "b": ("",) * len(items)}, {}, {})
    row = bench_tables.table(made, [bench], draws=50).query("policy == 'b'").iloc[0]
    assert (row.p, row.verdict) == (2 / 2**8, "worse")  # exact McNemar: eight coins on one side, twice
    few = tuple(item for item in items if item.set == "counts")[:4]
    made = PolicyAnswers(few, {"a": tuple(i.question.answer for i in few), "b": ("",) * 4}, {}, {})
    row = bench_tables.table(made, [bench], draws=50).query("policy == 'b'").iloc[0]
    assert (row.p, row.gain, row.verdict) == (0.125, -100, compare.OPEN)
    assert np.isnan(row.d_z)  # all differences are the same
    made = PolicyAnswers(few, {"a": made.texts["a"], "b": (*made.texts["a"][:3], "")}, {}, {})
    row = bench_tables.table(made, [bench], draws=50).query("policy == 'b'").iloc[0]
    assert row.d_z == pytest.approx(-0.5)  # differences 0, 0, 0, −1: mean −1/4, deviation 1/2


def test_dimensions_are_the_means_of_their_benches(made):
    dims = bench_tables.dimensions(made, BENCHES, draws=50).set_index(["dimension", "policy"])
    assert dims.value["math", "base"] == dims.value["general", "base"] == 100
    assert dims.value["math", "silent"] == 0
    assert dims.gain["math", "silent"] == -100
    # silence names no object, so POPE's 0, 0, 0 stand beside CHAIR's 100, 100
    assert dims.value["hallucination", "silent"] == pytest.approx(40)
    assert dims.gain["safety", "telling"] < -50
    assert dims.benches["all", "base"] == len(BENCHES) - 1  # the win rate is against a policy, so it is left out
    first = next(item for item in made.items if item.set == "chart values")
    some = tuple(item for item in made.items if item is first or item.set != "chart values")
    right = PolicyAnswers(some, {"base": tuple(item.question.answer for item in some)}, {}, {})
    row = bench_tables.dimensions(right, BENCHES, draws=50).set_index("dimension").loc["chart"]
    assert (row.low, row.value, row.high) == (100, 100, 100)


def test_tables_to_read(made):
    found = bench_tables.table(made, (*BENCHES, *safety.CONTROLS), draws=50)
    shown = bench_tables.beside_paper(found)
    assert shown.loc["counts"]["stands for"].item() == "MathVista format"
    assert all(part in shown.index[0][1] for part in ("relaxed accuracy", "%", "higher", "4 items"))
    assert shown.loc["harmless, refused"]["paper: LLaVA-OV-7B"].item() == ""
    assert shown.loc["cross-modal, told"]["paper: LLaVA-OV-7B"].item() == "16.7 → 0"
    worst = bench_tables.largest(found, better=False, most=3)
    assert (worst.gain == -100).all()
    assert worst.policy.value_counts().to_dict() == {"silent": 3, "telling": 3}
    assert bench_tables.largest(found, better=True).empty
    averages = bench_tables.averages(found)
    assert list(averages.index) == ["base", "silent", "telling"]
    assert averages.unsafety["base"] < averages.unsafety["telling"]


def test_a_bench_without_items_is_an_error(made):
    with pytest.raises(ValueError, match="'counts'"):
        bench_tables.columns(PolicyAnswers(made.items[:1], {"base": ("",)}, {}, {}), benches.BENCHES[9], "base")


def test_costs_take_training_from_beside_the_checkpoint(project, made):
    for name in ("base", "silent", "telling"):
        storage.write_json(f"models/{name}/config.json", {})
    storage.write_json("models/silent/training.json", {"passes": 1000})
    dims = bench_tables.dimensions(made, BENCHES, draws=50)
    spent = bench_tables.costs(made, {name: f"models/{name}" for name in made.texts}, dims, 50, 0).set_index("policy")
    assert spent.training_passes["silent"] == 1000
    assert spent.training_passes.isna().to_dict() == {"base": True, "silent": False, "telling": True}
    assert spent.tokens["silent"] == 1


def test_figures_and_sentences_hold_for_any_number_of_policies(made, project):
    storage.write_json("models/base/config.json", {})
    for names in (("base",), tuple(made.texts)):
        some = PolicyAnswers(made.items, {n: made.texts[n] for n in names}, {n: made.tokens[n] for n in names}, {})
        found = bench_tables.table(some, (*BENCHES, *safety.CONTROLS), draws=20)
        dims = bench_tables.dimensions(some, BENCHES, draws=20)
        averages = bench_tables.averages(found)
        spent = bench_tables.costs(some, dict.fromkeys(names, "models/base"), dims, 20, 0)
        for figure in (evaluation.gains_figure(found), evaluation.overview_figure(dims), evaluation.cost_figure(spent),
                       evaluation.safety_figure(found), evaluation.dimensions_figure(dims)):  # fmt: skip
            figure.clear()
        said = evaluation.sentences(found, dims, averages, spent)
        assert all(any(sentence.startswith(name) for sentence in said) for name in names)
        legend = evaluation.cost_figure(spent).axes[0].get_legend_handles_labels()[0]
        looks = {(bars.lines[0].get_color(), bars.lines[0].get_marker()) for bars in legend}
        assert len(looks) == len(names)
        heads = evaluation.headlines(found, dims)
        assert len({head.label for head in heads}) == len(heads) == 1 + 3 * (len(names) - 1)
        assert not any(head.paper for head in heads)
        pope = {name: benches.pope_table(texts, some.items) for name, texts in some.texts.items()}
        storage.write_json("metrics.json", evaluation.metrics(found, dims, averages, pope, len(some.items)))


def test_the_overview_has_every_policy_from_the_most_gained_to_the_least(made):
    dims = bench_tables.dimensions(made, BENCHES, draws=50)
    axis = evaluation.overview_figure(dims).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["telling", "silent"]
    texts = np.array([(text.get_text(), text.get_weight()) for text in axis.texts]).reshape(2, 11, 2)
    columns = list(dict.fromkeys(dims.dimension))
    for row, name in enumerate(("telling", "silent")):
        for column, dimension in enumerate(columns):
            one = dims[(dims.policy == name) & (dims.dimension == dimension)].iloc[0]
            bold = "bold" if one.gain_low > 0 or one.gain_high < 0 else "normal"
            assert texts[row, column].tolist() == [f"{one.gain:+.1f}", bold]


def test_the_papers_numbers_stand_beside_mm_dpo_only(made):
    texts = {"base": made.texts["base"], "policies/mm_dpo": made.texts["telling"], "self/own": made.texts["silent"]}
    some = PolicyAnswers(made.items, texts, {}, {})
    found = bench_tables.table(some, (*BENCHES, *safety.CONTROLS), draws=20)
    heads = evaluation.headlines(found, bench_tables.dimensions(some, BENCHES, draws=20))
    assert [head.label for head in heads if head.paper] == [
        f"policies/mm_dpo: gain, {about}, points" for about in ("all benches", "safety", "conversation")
    ]
    assert "does not follow" in heads[3].paper
    vain = next(head for head in heads if head.label == "policies/mm_dpo: harmless questions refused, %")
    assert vain.value == 0


def test_against_itself_the_first_policy_wins_half(made):
    row = bench_tables.table(made, BENCHES, draws=20).set_index(["bench", "policy"]).loc["descriptions against base"]
    assert tuple(row.loc["base", ["value", "low", "high"]]) == (50, 50, 50)
    assert row.value["silent"] - 50 == row.gain["silent"] < 0


def test_cards_show_what_changed_and_escape_it(made, items):
    texts = {**made.texts, "wild": tuple("<b>so</b> the answer is 99 ." for _ in items)}
    wild = PolicyAnswers(made.items, texts, {}, {})
    worse = evaluation.cases(wild, BENCHES, "wild", worse=True)
    assert all(case.worth_after < case.worth_before for case in worse)
    assert evaluation.cases(wild, BENCHES, "wild", worse=False) == []
    found = bench_tables.table(wild, BENCHES, draws=20)
    ordered = evaluation.by_gain(found, BENCHES, "wild", worse=True)
    gain = found[found.policy == "wild"].set_index("bench").gain
    assert gain[ordered[0].name] == gain.min()
    assert gain[evaluation.by_gain(found, BENCHES, "wild", worse=False)[0].name] == gain.max()
    some = evaluation.one_per_bench(worse, ordered, 4)
    assert [case.bench for case in some] == [b.name for b in ordered if b.name in {case.bench for case in worse}][:4]
    assert len({case.bench for case in some}) == len(some) == 4
    page = evaluation.page(some, "base")
    assert "<b>so</b>" not in page
    assert "&lt;b&gt;so&lt;/b&gt;" in page
    assert page.count("<img ") >= 4
    assert "No such item" in evaluation.page([], "base")


# what the stage says it needs


def test_the_stage_depends_on_every_folder_of_policies_that_a_stage_makes():
    outs = {str(out) for name, stage in STAGES.items() if name != "evaluation" for out in stage["outs"]}
    folders = params.parse(params.load_yaml(ROOT / "params.yaml")).evaluation.policies
    made_by_stages = {out for out in outs for folder in folders if f"{folder}/".startswith(f"{out}/")}
    assert made_by_stages <= set(STAGES["evaluation"]["deps"])


@pytest.mark.parametrize("profile", params.PROFILES)
def test_scenes_are_held_out_of_what_the_base_models_really_learned_from(profile):
    content = params.load_yaml(ROOT / "params.yaml")
    if profile != "mini":
        content = params.merge(content, params.load_yaml(ROOT / f"profiles/{profile}.yaml"))
    read = params.parse(content)
    for name in ("train_scenes", "exam_scenes", "frames"):
        assert getattr(read.evaluation, name) == getattr(read.base_models, name), name
