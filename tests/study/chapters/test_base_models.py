"""The gallery: escaped texts, right and wrong answers marked, the frames of a clip in one row."""

from dataclasses import replace

from mmrlhf_study.chapters import base_models
from mmrlhf_study.miniworld import questions, render

COLOUR = questions.question("shapes-17-colour-open")
CLIP = questions.question("clip-3-describe-open")


def test_answers_are_marked_and_no_text_gets_into_the_page_unescaped():
    asked = [("shapes", replace(COLOUR, prompt="<b>what ?"))]
    answers = {"<i>one": [COLOUR.answer], "two": ["<script>"]}
    page = base_models.gallery(asked, answers, [0])
    assert page.count("class='right'") == page.count("class='wrong'") == 1
    assert not any(text in page for text in ("<b>what", "<i>one", "<script>"))
    assert all(text in page for text in ("&lt;b&gt;what", "&lt;i&gt;one", "&lt;script&gt;", "<div class='wide'>"))


def test_a_long_clip_is_a_row_of_its_first_last_and_middle_frames():
    frames = render.render(CLIP.scene)
    assert len(frames) > base_models.MOST_PICTURES
    row = base_models.shown_pictures(frames)
    assert row.count("<img") == base_models.MOST_PICTURES
    assert row.startswith(base_models.picture(frames[0]))
    assert row.endswith(base_models.picture(frames[-1]))
    assert base_models.gallery([("clip", CLIP)], {}, [0]).count("<img") == base_models.MOST_PICTURES
