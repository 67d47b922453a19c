"""Training on ranked trees in one process: normalisation, arms, logs, NaN, interruption, checkpoints, refusals."""

import math
import shutil
from dataclasses import replace

import pytest
import ranked_examples as tiny
import torch
import transformers as hf
from plain_layouts import full_logps
from safetensors.torch import save_file

from mmrlhf_core.models import reward
from mmrlhf_core.objectives import preference
from mmrlhf_core.ranked.batch import RankedQuery, build_tree
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_core.training import checkpoints, losses
from mmrlhf_core.training.dataset import RankedExample, collate
from mmrlhf_core.training.losses import Objective, Pairs
from mmrlhf_core.training.preference import PreferenceTrainer
from mmrlhf_core.training.reward import RewardTrainer
from mmrlhf_core.training.trainer import NotFinite


def train(folder, data, objective=Objective(), dtype=torch.float32, **given):  # noqa: B008
    trainer = PreferenceTrainer(tiny.model(dtype=dtype), tiny.settings(folder, **given), data, objective)
    trainer.train()
    return trainer


def logged_losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def data():
    return tiny.examples(8)


# normalisation


@pytest.mark.parametrize("weighting", ["pair", "query"])
def test_the_first_loss_is_the_mean_over_the_whole_step(tmp_path, weighting):
    data = tiny.examples(4)
    trainer = train(tmp_path, data, Objective(sft_weight=0.25, pair_weighting=weighting), max_steps=1)
    fresh, plain = tiny.model().model, []
    for example in data:
        with torch.no_grad():
            logps = full_logps(fresh, [(example.query, k) for k in range(len(example.query.responses))])
        reference = torch.stack([tokens.sum() for tokens in example.reference])
        lengths = torch.tensor([float(len(response)) for response in example.query.responses])
        w, lose = torch.tensor(example.query.pairs).unbind(1)
        h = preference.log_ratio_margin(logps[w], logps[lose], reference[w], reference[lose])
        each = preference.mm_dpo(h, example.margins, 0.1, 0.5, 0.5) + 0.25 * preference.sft(logps[w], lengths[w])
        plain.append(each)
    expected = torch.cat(plain).mean() if weighting == "pair" else torch.stack([each.mean() for each in plain]).mean()
    assert logged_losses(trainer)[0] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("weighting", ["pair", "query"])
def test_accumulation_changes_nothing(tmp_path, data, weighting):
    objective = Objective(sft_weight=0.25, pair_weighting=weighting)
    shapes = [(1, 4), (2, 2), (4, 1)]
    runs = [
        train(tmp_path / f"{n}", data, objective, torch.float64, per_device_train_batch_size=n,
              gradient_accumulation_steps=a)
        for n, a in shapes
    ]  # fmt: skip
    first = tiny.weights(runs[0].model)
    assert tiny.distance(first, tiny.weights(tiny.model(dtype=torch.float64))) > 1e-3
    for run in runs[1:]:
        assert logged_losses(run) == pytest.approx(logged_losses(runs[0]), abs=1e-6)  # added up in single precision
        assert tiny.distance(first, tiny.weights(run.model)) < 1e-10


def test_filling_up_the_last_step_counts_no_query_twice(tmp_path):
    seven = tiny.examples(7)
    trainer = train(tmp_path, seven, max_steps=2, learning_rate=0.0, per_device_train_batch_size=1,
                    gradient_accumulation_steps=4)  # fmt: skip
    pairs = [len(example.query.pairs) for example in seven]
    assert len(trainer.train_dataset) == 8
    assert len(trainer.train_dataset[7].query.pairs) == 0
    # without learning, the mean over the epoch's pairs is the mean over all pairs, each once
    epoch = [collate([trainer.train_dataset[i]]) for i in range(8)]
    assert sum(batch["weights"]["pair"].sum().item() for batch in epoch) == sum(pairs)
    assert epoch[7]["weights"]["critique"].sum() == 0


def test_other_processes_decide_what_losses_are_divided_by(tmp_path, monkeypatch):
    """A second process with three times the pairs and five calls of the head, as the gather would show it."""
    data = tiny.examples(4)
    trainer = PreferenceTrainer(tiny.model(), tiny.settings(tmp_path), data, Objective())
    mine = collate(data)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda x: torch.cat([x, x * torch.tensor([3, 1, 1, 5, 1])]))
    (batch,), items = trainer.get_batch_samples(iter([mine]), 1, torch.device("cpu"))
    pairs = sum(len(example.query.pairs) for example in data)
    assert items[0] == 4 * pairs
    assert batch["calls"] == 5
    monkeypatch.setattr(trainer.accelerator, "gather", lambda x: torch.cat([x, x * torch.tensor([1, 1, 1, 1, 0])]))
    with pytest.raises(ValueError, match="micro-batch of step 1"):
        trainer.get_batch_samples(iter([mine]), 1, torch.device("cpu"))


# losses


def pairs(seed=0):
    numbers = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Pairs(*numbers[:4] * 3 - 9, torch.full((6,), 4.0).double(), torch.full((6,), 5.0).double(), numbers[4] + 1)


def test_every_arm_is_its_objective():
    p, alone = pairs(), lambda values: (values, slice(0, len(values)))
    o = {arm: Objective(loss=arm) for arm in losses.LOSSES}
    means = (p.logp_w - p.ref_logp_w) / 4 - (p.logp_l - p.ref_logp_l) / 5
    expected = {
        "dpo": preference.dpo(p.h, 0.1),
        "mm_dpo": preference.mm_dpo(p.h, p.delta, 0.1, 0.5, 0.5),
        "odpo": preference.dpo_with_offset(p.h, 0.1, preference.offset_of_margin(p.delta, 0.6)),
        "conservative_dpo": preference.conservative_dpo(p.h, 0.1, 0.1),
        "robust_dpo": preference.robust_dpo(p.h, 0.1, 0.1),
        "ipo": preference.ipo(means, 0.1),
        "sft": preference.sft(p.logp_w, p.length_w),
        "simpo": preference.simpo(p.logp_w, p.logp_l, p.length_w, p.length_l, 0.1, 0.5),
        "released": preference.dpo(p.h, preference.released_beta(p.h, 0.1, 0.5, torch.Generator().manual_seed(3))),
    }
    for arm, values in expected.items():
        got, beta, factor = losses.pair_losses(o[arm], p, [0.0, 1.0], alone, 3)
        torch.testing.assert_close(got, values)
        assert beta.shape == factor.shape == got.shape
    assert set(expected) | {"beta_dpo"} == set(losses.LOSSES)


def test_beta_dpo_filters_and_moves_its_statistics():
    p, statistics = pairs(), [0.0, 1.0]
    got, beta, factor = losses.pair_losses(
        Objective(loss="beta_dpo"), p, statistics, lambda v: (v, slice(0, len(v))), 3
    )
    kept = factor > 0
    assert kept.sum() == 4  # ⌊0.8 · 6⌋
    assert factor[kept].tolist() == [1.5] * 4
    assert statistics == pytest.approx(preference.beta_dpo_statistics(p.h, 0.1, 0.0, 1.0, 0.9))
    torch.testing.assert_close(got, preference.dpo(p.h, beta[0]))


@pytest.mark.parametrize("arm", losses.LOSSES)
def test_every_arm_trains(tmp_path, data, arm):
    trainer = train(tmp_path, data, Objective(loss=arm, sft_weight=0.1 * (arm != "sft")), max_steps=1)
    entry = trainer.state.log_history[0]
    assert math.isfinite(entry[f"loss/{arm}"])
    assert tiny.distance(tiny.weights(trainer.model), tiny.weights(tiny.model())) > 1e-4


@pytest.mark.parametrize(
    "bad", [{"loss": "mmdpo"}, {"negative_margin": "floor"}, {"pair_weighting": "batch"}, {"beta_ori": 0.0},
            {"w": -1.0}, {"epsilon": 0.5}, {"rho": 0.0}, {"sft_weight": 0.1, "loss": "sft"}]
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Objective(**bad)


# what is logged


def test_logs_name_every_part_and_start_where_they_should(tmp_path, data):
    start = tiny.model()
    own = []
    for example in data:
        with torch.no_grad():
            tokens = response_logps(start.model, build_tree([example.query])).tokens
        own.append(replace(example, reference=tokens.split([len(r) for r in example.query.responses])))
    entry = train(tmp_path, own, Objective(sft_weight=0.5), max_steps=1).state.log_history[0]
    assert entry["loss/mm_dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert entry["loss"] == pytest.approx(entry["loss/mm_dpo"] + 0.5 * entry["loss/sft"], rel=1e-6)
    assert entry["kl/reference"] == pytest.approx(0, abs=1e-9)
    assert entry["rewards/margin"] == pytest.approx(0, abs=1e-6)
    assert entry["beta/min"] == pytest.approx(0.1)
    assert entry["beta/max"] <= 0.15
    assert entry["delta/min"] <= entry["delta/p10"] <= entry["delta/p50"] <= entry["delta/p90"] <= entry["delta/max"]
    assert {"rewards/chosen", "rewards/rejected", "rewards/accuracy"} <= set(entry)
    assert entry["logratios/chosen"] == pytest.approx(0, abs=1e-5)
    assert entry["logps/chosen"] < 0 > entry["logps/rejected"]
    assert entry["tokens/per_second"] > 0
    assert 0 < entry["tokens/shared_share"] < 1


def test_evaluation_reports_the_same_numbers(tmp_path, data):
    trainer = PreferenceTrainer(tiny.model(), tiny.settings(tmp_path), data, Objective(), eval_dataset=data)
    trainer.evaluate()
    entry = trainer.state.log_history[-1]
    assert {"eval_loss", "eval_rewards/accuracy", "eval_beta/p50", "eval_kl/reference"} <= set(entry)


# a run that goes wrong


class Poison(hf.TrainerCallback):
    """Puts a NaN into one weight at the start of a step."""

    def __init__(self, model, step):
        self.model, self.step = model, step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            with torch.no_grad():
                self.model.model.get_input_embeddings().weight[5:200].fill_(math.nan)


def test_a_nan_stops_names_the_queries_and_keeps_the_last_checkpoint(tmp_path, data):
    trainer = PreferenceTrainer(
        tiny.model(), tiny.settings(tmp_path, save_strategy="steps", save_steps=1), data, Objective()
    )
    trainer.add_callback(Poison(trainer.model, 2))
    with pytest.raises(NotFinite, match=r"loss of step 3 .* last good checkpoint is checkpoint-2") as error:
        trainer.train()
    named = {example.id for example in data if example.id in str(error.value)}
    assert len(named) == 2  # the micro-batch that met it
    kept = checkpoints.last(tmp_path)
    assert kept.name == "checkpoint-2"
    saved = hf.AutoModelForImageTextToText.from_pretrained(kept)
    assert all(value.isfinite().all() for value in saved.state_dict().values())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path, data):
    trainer = PreferenceTrainer(tiny.model(), tiny.settings(tmp_path), data, Objective())
    head = trainer.model.model.base_model.language_model.norm.weight
    head.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFinite, match="gradient norm of step 1"):
        trainer.train()
    assert tiny.same(tiny.weights(trainer.model), tiny.weights(tiny.model()))


# checkpoints


def test_a_checkpoint_is_an_ordinary_folder_without_pickled_arguments(tmp_path, data):
    trainer = train(tmp_path, data, max_steps=1, save_strategy="steps", save_steps=1)
    folder = checkpoints.last(tmp_path)
    assert not (folder / "training_args.bin").exists()
    saved = hf.AutoModelForImageTextToText.from_pretrained(folder)
    assert tiny.same(tiny.weights(saved), tiny.weights(trainer.model.model))


def test_lora_trains_saves_and_resumes_adapters_only(tmp_path, data):
    import peft

    def with_adapter():
        ranked = tiny.model()
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], exclude_modules=r".*vision_tower.*")
        ranked.model = peft.get_peft_model(ranked.model, config)
        return ranked

    args = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "learning_rate": 1e-2}
    whole = PreferenceTrainer(with_adapter(), tiny.settings(tmp_path / "a", **args), data, Objective())
    whole.train()
    before, after = tiny.weights(with_adapter()), tiny.weights(whole.model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    folder = checkpoints.last(tmp_path / "a")
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "model.safetensors").exists()
    (tmp_path / "a/checkpoint-2/complete.json").unlink()
    again = PreferenceTrainer(with_adapter(), tiny.settings(tmp_path / "a", **args), data, Objective())
    again.resume()
    assert tiny.same(after, tiny.weights(again.model))


def test_activation_checkpointing_changes_nothing(tmp_path, data):
    plain = train(tmp_path / "plain", data, max_steps=2)
    ranked = tiny.model()
    ranked.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ranked.model.enable_input_require_grads()
    trainer = PreferenceTrainer(ranked, tiny.settings(tmp_path / "saved", max_steps=2), data, Objective())
    trainer.train()
    assert tiny.distance(tiny.weights(plain.model), tiny.weights(ranked)) < 1e-6


def test_moments_by_name_resume_like_the_optimizer_they_came_from(tmp_path, data):
    """What is gathered from DeepSpeed's shards, here written from a plain Adam, goes on to the same bits."""
    given = {"save_strategy": "steps", "save_steps": 2}
    whole = train(tmp_path, data, **given)
    folder = tmp_path / "checkpoint-2"
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    decayed = [n for n, p in whole.model.named_parameters() if p.requires_grad and n in whole_decay(whole)]
    others = [n for n, p in whole.model.named_parameters() if p.requires_grad and n not in decayed]
    moments = {
        f"{name}.{moment}": state["state"][number][moment]
        for number, name in enumerate([*decayed, *others])
        for moment in checkpoints.ADAM
    }
    save_file(moments, folder / checkpoints.OPTIMIZER_FILE)
    (folder / "optimizer.pt").unlink()
    shutil.rmtree(tmp_path / "checkpoint-3")
    again = PreferenceTrainer(tiny.model(), tiny.settings(tmp_path, **given), data, Objective())
    again.resume()
    assert logged_losses(again) == logged_losses(whole)
    assert tiny.same(tiny.weights(again.model), tiny.weights(whole.model))


def whole_decay(trainer):
    """Parameters of the optimizer's first group, those that weight decay would touch."""
    return trainer.get_decay_parameter_names(trainer.model)


def test_deepspeed_and_fsdp_resume_only_their_own_layout():
    saved = {"layout": "DEEPSPEED-3", "processes": 8}
    checkpoints.check_layout(saved, "DEEPSPEED-3", 8)
    checkpoints.check_layout(saved, "NO", 1)
    with pytest.raises(ValueError, match="written by 8 × DEEPSPEED-3 and this run is 4 × DEEPSPEED-3"):
        checkpoints.check_layout(saved, "DEEPSPEED-3", 4)
    checkpoints.check_layout({"layout": "FSDP", "processes": 8}, "FSDP", 4)
    for one, other in (("FSDP", "NO"), ("MULTI_GPU", "FSDP")):
        with pytest.raises(ValueError, match=f"FSDP resumes FSDP only: resume with {one}"):
            checkpoints.check_layout({"layout": one, "processes": 2}, other, 2)


# reward model


def head():
    return reward.ScoreHead(32, reward.form_of(tiny.processor()), seed=1)


def critiques(count):
    """Branches of a response and its critique; only the critique counts, and some responses have none."""
    made = []
    for number, example in enumerate(tiny.examples(count, margins=False, reference=False)):
        end = torch.tensor([tiny.processor().tokenizer.eos_token_id])
        branches = [torch.cat([end, response, end]) for response in example.query.responses]
        masks = [torch.arange(len(r)) >= len(r) // 2 for r in branches]
        if number % 2:
            masks[0] = torch.zeros_like(masks[0])
        query = RankedQuery(example.query.prefix, example.query.media, branches, example.query.pairs, masks)
        made.append(RankedExample(example.id, query, ties=((0, 1),) if number == 2 else ()))
    return made


def test_reward_losses_are_the_equations(tmp_path):
    data, ranked = critiques(4), tiny.model(head())
    trainer = RewardTrainer(ranked, tiny.settings(tmp_path, max_steps=1, learning_rate=0.0), data,
                            critique_weight=1.0, score_weight=1.0, centre_weight=0.01, tie_weight=0.5)  # fmt: skip
    trainer.train()
    entry = trainer.state.log_history[0]
    critique, score, centre, tie = [], [], [], []
    for example in data:
        batch = collate([example])
        with torch.no_grad():
            sums, _, r = ranked(batch["tree"])
        lengths = [int(mask.sum()) for mask in example.query.counted]
        critique += [-s.item() / n for s, n in zip(sums, lengths, strict=True) if n]
        score += [math.log1p(math.exp(-(r[a] - r[b]).item())) for a, b in example.query.pairs]
        centre += [(r[a] + r[b]).item() ** 2 for a, b in example.query.pairs]
        tie += [(r[a] - r[b]).item() ** 2 for a, b in example.ties]

    def mean(values):
        return sum(values) / len(values)

    assert entry["loss/critique"] == pytest.approx(mean(critique), rel=1e-5)
    assert entry["loss/score"] == pytest.approx(mean(score), rel=1e-5)
    assert entry["loss/centre"] == pytest.approx(mean(centre), rel=1e-5)
    assert entry["loss/tie"] == pytest.approx(mean(tie), rel=1e-5)
    assert entry["loss"] == pytest.approx(
        mean(critique) + mean(score) + 0.01 * mean(centre) + 0.5 * mean(tie), rel=1e-5
    )


def test_reward_training_learns_saves_its_head_and_needs_one(tmp_path):
    data, given = critiques(4), {"save_strategy": "steps", "save_steps": 10, "max_steps": 20, "learning_rate": 1e-2}
    trainer = RewardTrainer(tiny.model(head()), tiny.settings(tmp_path, **given), data)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss/score" in entry]
    assert history[-1]["loss/score"] < 0.5 * history[0]["loss/score"]
    assert history[-1]["rewards/accuracy"] == 1.0
    (tmp_path / "checkpoint-20/complete.json").unlink()
    again = RewardTrainer(tiny.model(head()), tiny.settings(tmp_path, **given), data)
    again.resume()
    assert tiny.same(tiny.weights(again.model), tiny.weights(trainer.model))
    trainer.processing_class = tiny.processor()
    trainer.save_model(tmp_path / "saved")
    loaded = reward.load(tmp_path / "saved")
    assert tiny.same(tiny.weights(loaded.head), tiny.weights(trainer.model.score))
    assert loaded.form == trainer.model.score.form
    with pytest.raises(ValueError, match="needs a score head"):
        RewardTrainer(tiny.model(), tiny.settings(tmp_path), data)


# bad input


def test_missing_margins_and_reference_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mm_dpo needs a reward margin .* queries q"):
        train(tmp_path, tiny.examples(4, margins=False))
    with pytest.raises(ValueError, match=r"dpo needs reference .* queries q"):
        train(tmp_path, tiny.examples(4, reference=False), Objective(loss="dpo"))
    for arm in losses.NO_REFERENCE:
        train(tmp_path, tiny.examples(4, margins=False, reference=False), Objective(loss=arm), max_steps=1)
