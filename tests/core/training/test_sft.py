"""Fine-tuning: the loss sees answers only, shared pictures change nothing, and a killed run ends as if never killed."""

import random
import signal

import numpy as np
import processes
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked.vision import frozen
from mmrlhf_core.training import checkpoints, sft
from mmrlhf_core.training.sft import Exchange, SftSettings
from mmrlhf_study.miniworld import miniature

WORDS = ["a", "red", "blue", "circle", "square", "at", "b3", ".", "what", "is", "?"]
SIZE = miniature.Size(width=32, layers=2, heads=4, kv_heads=2, mlp=48, vision_width=32, vision_layers=1, vision_mlp=32)


def picture(colour, side=64):
    return Image.new("RGB", (side, side), colour)


def examples(count, each=2):
    """Pictures of one colour with `each` questions about them."""
    made = []
    for number in range(count):
        name = ("red", "blue")[number % 2]
        shown = (picture((220 - number, 0, 0) if name == "red" else (0, 0, 220 - number)),)
        asked = [Exchange(Prompt("what is at b3 ?", shown), f"a {name} circle .")]
        asked += [
            Exchange(Prompt("what is ?" + " ?" * extra, shown), f"{name} ." * (extra + 1)) for extra in range(each - 1)
        ]
        made.append(asked)
    return made


def fresh():
    return miniature.create("llava_onevision", WORDS, SIZE, seed=0)


def losses(made, taken):
    """Summed loss and number of answer tokens of a batch."""
    batch = sft.collate(made.processor, taken)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = made.model(**batch).logits
    kept = labels[:, 1:] != sft.IGNORED
    return torch.nn.functional.cross_entropy(logits[:, :-1][kept].double(), labels[:, 1:][kept], reduction="none")


def sharpened():
    made = fresh()
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(4 if weight.dim() > 1 else 1)
    return made


def test_shared_pictures_give_the_loss_of_separate_rows():
    made, taken = sharpened(), examples(3, each=3)
    together = losses(made, taken)
    apart = torch.cat([losses(made, [[exchange]]) for example in taken for exchange in example])
    assert torch.allclose(together, apart, rtol=1e-5, atol=1e-5)
    assert together.std() > 0.1


def test_a_question_does_not_see_its_siblings_but_does_see_the_picture():
    made, (first, second) = sharpened(), examples(2, each=2)
    count = len(losses(made, [second[1:]]))
    other = Exchange(Prompt("a red square at b3 .", second[0].prompt.images), "blue blue blue .")
    assert torch.allclose(losses(made, [[other, second[1]]])[-count:], losses(made, [second])[-count:], atol=1e-5)
    elsewhere = Exchange(Prompt(second[1].prompt.text, first[0].prompt.images), second[1].answer)
    assert (losses(made, [[elsewhere]]) - losses(made, [second[1:]])).abs().max() > 1e-3


def test_the_loss_sees_the_answer_and_its_end_and_nothing_else():
    processor = fresh().processor
    batch = sft.collate(processor, examples(2, each=1))
    (ids, labels) = (batch[name][1] for name in ("input_ids", "labels"))
    assert processor.decode(ids[labels != sft.IGNORED]) == "a blue circle .<|im_end|>"
    assert torch.equal(labels[labels != sft.IGNORED], ids[labels != sft.IGNORED])
    before = processor.decode(ids[: int((labels != sft.IGNORED).nonzero()[0])])
    assert before.endswith("what is at b3 ?<|im_end|>\n<|im_start|>assistant\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 8), st.integers(1, 30), st.integers(0, 9))
def test_every_epoch_shows_every_lesson_once(sizes, batch, steps, seed):
    order = list(sft.Batches(sizes, batch, steps, seed))
    assert len(order) == batch * steps
    assert order == list(sft.Batches(sizes, batch, steps, seed))
    counts = np.bincount(order, minlength=len(sizes))
    whole, rest = divmod(batch * steps, len(sizes))
    assert counts.sum() == whole * len(sizes) + rest
    assert counts.max() - counts.min() <= 1


def test_batches_put_like_with_like():
    sizes = [1, 100] * 32
    order = np.array(list(sft.Batches(sizes, 4, 16, 0))).reshape(16, 4)
    assert all(len({sizes[i] for i in row}) == 1 for row in order)


def test_a_run_is_named_by_all_that_decides_it():
    made, taken, how = fresh(), examples(2), SftSettings(steps=2, batch=1, lr=1e-3)
    names = {
        sft.fingerprint(made, taken, how),
        sft.fingerprint(made, taken[::-1], how),
        sft.fingerprint(made, examples(3), how),
        sft.fingerprint(made, taken, SftSettings(steps=2, batch=1, lr=2e-3)),
        sft.fingerprint(miniature.create("llava_onevision", WORDS, SIZE, seed=1), taken, how),
    }
    assert len(names) == 5
    assert sft.fingerprint(fresh(), examples(2), how) in names


def test_multimodal_rotary_positions_are_refused_with_a_sentence(tmp_path):
    made = miniature.create("qwen2_5_vl", WORDS, SIZE, seed=0)
    with pytest.raises(ValueError, match="multimodal rotary positions"):
        sft.train(made, examples(2), SftSettings(steps=1, batch=1, lr=1e-3), tmp_path)


HOW = SftSettings(steps=24, batch=2, lr=3e-3, save_steps=3, logging_steps=1, precision="bfloat16")


class Tell(hf.TrainerCallback):
    """Says when a step is done."""

    def __init__(self, step, done):
        self.step, self.done = step, done

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == self.step:
            self.done.set()


def trained(folder, callbacks=()):
    """A model as the chapter trains it, in bfloat16 with a tower that stays, and its losses."""
    torch.set_num_threads(1)
    made = fresh()
    with frozen(made.model):
        curve = sft.train(made, examples(8), HOW, folder, callbacks)
    return made.model.state_dict(), curve


def work(folder, step, done):
    """What the process does that is killed at some time after `step`."""
    torch.use_deterministic_algorithms(True)
    trained(folder, [Tell(step, done)])


@pytest.mark.xdist_group("processes")
def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_curve(server, tmp_path):
    whole, curve = trained(tmp_path / "whole")
    stop = random.SystemRandom().randint(HOW.save_steps + 1, HOW.steps - 1)
    done = server.Event()
    child = processes.start(server, work, tmp_path / "killed", stop, done)
    assert done.wait(120)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    left = checkpoints.last(next((tmp_path / "killed").iterdir()))
    assert left is not None
    assert 0 < int(left.name.removeprefix("checkpoint-")) <= stop
    weights, again = trained(tmp_path / "killed")
    assert again == curve, f"killed after step {stop}"
    assert all(torch.equal(weights[name], value) for name, value in whole.items()), stop
    assert not list((tmp_path / "killed").iterdir())
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
