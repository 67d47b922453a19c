"""The objectives against TRL's own trainers on the same tiny model and rows: DPO, IPO, robust DPO, SFT, SimPO."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from mmrlhf_core.objectives import preference

trl = pytest.importorskip("trl")

ROWS = [
    {"prompt": "a b c", "chosen": " d e f g", "rejected": " h"},
    {"prompt": "c a", "chosen": " g", "rejected": " f e h a b"},
    {"prompt": "h", "chosen": " a b", "rejected": " b a"},
]


def tiny(seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=16, num_key_value_heads=1, tie_word_embeddings=False, pad_token_id=0, **sizes)
    model = Qwen2ForCausalLM(config).float().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far enough from uniform that the losses tell the pairs apart
    return model


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    from datasets import Dataset

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", *"abcdefgh"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    args = trl.DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), use_cpu=True, report_to=[], beta=0.3, label_smoothing=0.2,
        bf16=False, per_device_train_batch_size=3, gradient_checkpointing=False,
    )  # fmt: skip
    return trl.DPOTrainer(
        model=tiny(0), ref_model=tiny(1), args=args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer
    )


@torch.no_grad()
def sums(model, batch):
    """Plain log-probability sums and lengths of the chosen and the rejected rows of TRL's batch."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    picked = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    mask = batch["completion_mask"][:, 1:]
    return *(picked * mask).sum(1).chunk(2), *mask.sum(1).chunk(2)


@pytest.fixture(scope="module")
def numbers(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    logp_w, logp_l, length_w, length_l = sums(trainer.model, batch)
    ref_w, ref_l, _, _ = sums(trainer.ref_model, batch)
    return batch, logp_w, logp_l, ref_w, ref_l, length_w, length_l


def theirs(trainer, batch, loss_type):
    trainer.loss_types, trainer.loss_weights = [loss_type], [1.0]
    with torch.no_grad():
        return trainer.compute_loss(trainer.model, batch).item()


def test_trl_agrees(trainer, numbers):
    batch, logp_w, logp_l, ref_w, ref_l, length_w, length_l = numbers
    h = preference.log_ratio_margin(logp_w, logp_l, ref_w, ref_l)
    means = (logp_w - ref_w) / length_w - (logp_l - ref_l) / length_l
    ours = {
        "sigmoid": preference.dpo(h, 0.3).mean(),
        "robust": preference.robust_dpo(h, 0.3, 0.2).mean(),
        "ipo": preference.ipo(means, 0.3).mean(),
        "sft": (preference.sft(logp_w, length_w) * length_w).sum() / length_w.sum(),
    }
    for loss_type, value in ours.items():
        assert value.item() == pytest.approx(theirs(trainer, batch, loss_type), rel=2e-6), loss_type
    assert len({round(value.item(), 3) for value in ours.values()}) == 4


@pytest.fixture
def contrastive():
    """TRL's reference-free trainer, just enough of it for its loss function."""
    from trl.experimental.cpo import CPOTrainer

    bare = CPOTrainer.__new__(CPOTrainer)
    bare.beta, bare.simpo_gamma, bare.label_smoothing, bare.alpha = 2.0, 0.5, 0.0, 0.0
    bare.accelerator = type("Here", (), {"device": torch.device("cpu")})()
    return bare


def test_trl_agrees_on_simpo(contrastive, numbers):
    _, logp_w, logp_l, _, _, length_w, length_l = numbers
    contrastive.loss_type = "simpo"
    expected, *_ = contrastive.cpo_loss(logp_w / length_w, logp_l / length_l)
    torch.testing.assert_close(preference.simpo(logp_w, logp_l, length_w, length_l, 2.0, 0.5), expected)


def test_trl_agrees_on_flipped_labels(contrastive, numbers):
    _, logp_w, logp_l, ref_w, ref_l, _, _ = numbers
    contrastive.loss_type, contrastive.label_smoothing = "sigmoid", 0.2
    expected, *_ = contrastive.cpo_loss(logp_w - ref_w, logp_l - ref_l)
    h = preference.log_ratio_margin(logp_w, logp_l, ref_w, ref_l)
    torch.testing.assert_close(preference.conservative_dpo(h, 2.0, 0.2), expected)
