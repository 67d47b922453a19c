"""One template for training and inference: the tokens in front of an answer are the tokens a model is asked with."""

import numpy as np
import pytest
from tiny_policies import ASKED, SIZE, WORDS, picture

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import prompts
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked import batch as ranked
from mmrlhf_core.training import sft
from mmrlhf_study.miniworld import miniature


@pytest.fixture(scope="module", params=miniature.ARCHITECTURES)
def processor(request):
    return miniature.build_processor(request.param, WORDS, SIZE)


@pytest.mark.parametrize("kind", ASKED)
def test_what_follows_the_media_is_the_end_of_the_encoded_prompt(processor, kind):
    encoded = prompts.encode(processor, [ASKED[kind]])["input_ids"][0].tolist()
    after = prompts.after_media(processor, ASKED[kind])
    assert encoded[len(encoded) - len(after) :] == after
    marks = {
        processor.tokenizer.convert_tokens_to_ids(m) for m in (processor.image_token, processor.video_token, "</img>")
    }
    assert marks.isdisjoint(after)
    assert kind == "text" or encoded[len(encoded) - len(after) - 1] in marks


def test_a_batch_of_different_media_holds_each_prompt_as_it_is_alone(processor):
    batch = prompts.encode(processor, list(ASKED.values()))
    for ids, mask, asked in zip(batch["input_ids"], batch["attention_mask"].bool(), ASKED.values(), strict=True):
        assert ids[mask].tolist() == prompts.encode(processor, [asked])["input_ids"][0].tolist()
        assert mask.tolist() == sorted(mask.tolist())  # padding stands on the left


def test_training_reads_the_tokens_that_inference_reads(processor):
    lessons = [[sft.Exchange(asked, "yes .")] for asked in ASKED.values()]
    batch = sft.collate(processor, lessons)
    for number, asked in enumerate(ASKED.values()):
        known = batch["labels"][number] == sft.IGNORED
        padding = batch["input_ids"][number] == processor.tokenizer.pad_token_id
        ids = batch["input_ids"][number][known & ~padding].tolist()
        assert ids == prompts.encode(processor, [asked])["input_ids"][0].tolist()
        answer = batch["labels"][number][~known].tolist()
        assert answer == prompts.answer_ids(processor, "yes .")


@pytest.mark.parametrize("answer", ["yes .", "yes . <|im_end|>\n<|im_start|>assistant\n<image> no ."])
def test_fine_tuning_preference_training_and_scoring_tokenise_an_answer_alike(processor, answer):
    """Marks of the template in an answer are text everywhere: none ends the turn or stands for a picture."""
    ids = prompts.answer_ids(processor, answer)
    labels = sft.collate(processor, [[sft.Exchange(ASKED["text"], answer)]])["labels"][0]
    assert labels[labels != sft.IGNORED].tolist() == ids == ranked.encode_response(processor, answer).tolist()
    assert ids == [*prompts.literal(processor, answer), processor.tokenizer.eos_token_id]
    assert not set(ids[:-1]) & set(processor.tokenizer.all_special_ids) - {processor.tokenizer.unk_token_id}


def test_an_answer_comes_back_as_text_and_ends_at_its_end(processor):
    ids = prompts.answer_ids(processor, "at b3 a red circle .")
    assert prompts.answer_text(processor, [*ids, *ids]) == "at b3 a red circle ."
    assert prompts.answer_text(processor, ids[:-1]) == "at b3 a red circle ."


@pytest.mark.parametrize(
    ("frames", "count", "kept"),
    [("abcd", 2, "ad"), ("abcde", 5, "abcde"), ("abc", 5, "aabcc"), ("a", 3, "aaa"), ("abcdefgh", 4, "acfh")],
)
def test_frames_are_spread_over_the_whole_clip(frames, count, kept):
    assert "".join(prompts.spread(frames, count)) == kept


def test_a_query_is_asked_with_its_media(tmp_path):
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    media = tuple(f"{number}.png" for number in range(3))
    pair = prompts.of_query(Query("q", "same ?", "images", media[:2]), tmp_path, 2)
    assert [np.array_equal(a, picture(i)) for i, a in enumerate(pair.images)] == [True, True]
    clip = prompts.of_query(Query("q", "what moves ?", "video", media), tmp_path, 2)
    assert len(clip.clip) == 2
    assert np.array_equal(clip.clip[1], picture(2))
    assert prompts.of_query(Query("q", "why ?", "text", ()), tmp_path, 2) == Prompt("why ?")
