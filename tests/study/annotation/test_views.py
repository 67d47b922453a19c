"""Cards escape everything, show what they can and say what they cannot; filters filter."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, Response
from mmrlhf_study.annotation import views
from mmrlhf_study.annotation.records import Judgement
from mmrlhf_study.annotation.views import Records

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG nothing")
    return tmp_path


def known(**query) -> tuple[Records, list[Pair]]:
    one = replace(Query("q1", "what ?", "image", ("a.png",), "long", topic="t"), **query)
    two = Query("q2", "who ?", "text", (), "short", topic="u")
    said = [
        Response(f"{q}/{k}", q, f"model {k}", text)
        for q in (one.id, "q2")
        for k, text in enumerate(("a red dog", "a blue dog"))
    ]
    judged = [
        Judgement(q, f"{q}/{k}", who, 5 - k, 4, 5) for q in (one.id, "q2") for k in (0, 1) for who in ("al", "bea")
    ]
    ranked = [Ranking(q, who, (f"{q}/0", f"{q}/1"), (1, 2)) for q in (one.id, "q2") for who in ("panel", "al")]
    ranked.append(Ranking("q2", "bea", ("q2/0", "q2/1"), (2, 1)))
    why = [Critique(r.id, r.query, "al", "because", "at length") for r in said]
    pairs = [
        Pair(one.id, f"{one.id}/0", f"{one.id}/1", "good", "bad", 1, 1.0, 1.0),
        Pair("q2", "q2/0", "q2/1", "", "", 2, 3.0, 0.0, 0.0, 3.0),
    ]
    return Records([one, two], said, judged, ranked, why), pairs


def test_a_card_shows_question_responses_scores_reasons_and_margin(folder):
    records, pairs = known()
    card = views.pair_card(pairs[0], records, folder)
    shown = ("what ?", "model 0", "model 1", "good", "bad", "+1.00", "helpfulness +1.0", "q1", "long", "very helpful")
    assert [part for part in shown if part not in card] == []
    assert card.count("data:image/png;base64,") == 1
    assert "a <mark>red</mark> dog" in card
    assert "a <mark>blue</mark> dog" in card
    whole = views.query_card("q1", records, folder)
    assert whole.index("model 0") < whole.index("model 1")
    assert "at length" in whole


def test_no_text_gets_into_the_page_unescaped(folder):
    records, pairs = known(id=EVIL, prompt=EVIL, topic=EVIL, media=(EVIL.replace("/", " "),))
    said = {name: replace(one, text=EVIL + name[-1], responder=EVIL) for name, one in records.responses.items()}
    why = [Critique(name, "q", EVIL, EVIL, EVIL) for name in said]
    judged = [one for rows in records.judgements.values() for one in rows]
    evil = Records(
        records.queries.values(),
        said.values(),
        judged,
        [r for rows in records.rankings.values() for r in rows.values()],
        why,
    )
    pair = replace(pairs[0], chosen_reason=EVIL, rejected_reason=EVIL)
    for card in (views.pair_card(pair, evil, folder), views.query_card(EVIL, evil, folder)):
        assert "<script" not in card
        assert not re.search(r"<img(?! alt=\")", card)
        assert set(re.findall(r"<(\w+)", card)) <= {"div", "p", "b", "i", "span", "mark", "img"}
        assert "&lt;script&gt;" in card


@pytest.mark.parametrize("path", ["none.png", "torn.png", "../a.png", "a.png/b.png", "<b>.png"])
def test_a_picture_that_cannot_be_shown_is_a_box(folder, path):
    shown = views.picture(folder, path)
    assert shown.startswith('<span class="broken">')
    assert "<b>" not in shown
    assert "<img" not in shown


def test_long_clips_show_first_and_last_frame(folder):
    names = [f"{n}.png" for n in range(20)]
    shown = views.pictures(folder, Query("c", "?", "video", tuple(names)))
    assert shown.count("broken") == views.MOST_FRAMES
    assert "0.png" in shown
    assert "19.png" in shown


def test_a_page_has_the_style_of_its_cards_and_pictures_of_a_readable_size(folder):
    records, pairs = known(modality="video", media=("a.png", "a.png"))
    page = views.page([views.pair_card(pairs[0], records, folder)])
    style, cards = page.split("</style>")
    for name in re.findall(r'class="(\w+)', cards):
        assert f".{name} " in style
    (frames,) = re.findall(r'<div class="frames">(.*?)</div>', cards)
    assert frames.count("<img") == cards.count("<img") == 2
    heights = [int(height) for height in re.findall(r"img \{ height: (\d+)px", style)]
    assert heights
    assert min(heights) >= 96


def test_marks_stand_only_on_words_that_differ():
    assert views.marked("a red dog", "a red dog") == "a red dog"
    assert views.marked("a red dog", "a dog") == "a <mark>red</mark> dog"
    assert views.marked("", "x") == "<i>(nothing)</i>"
    assert views.marked("a < b", "a > b") == "a <mark>&lt;</mark> b"


def test_filters_keep_what_they_name_and_the_sample_is_seeded():
    records, pairs = known()

    def kept(**filters) -> list[str]:
        found, n = views.choose(pairs, records, 9, **filters)
        assert n == len(found)
        return sorted(pair.query for pair in found)

    assert kept() == ["q1", "q2"]
    assert kept(category="long") == kept(topic="t") == kept(dimension="helpfulness") == kept(margin=(0, 2)) == ["q1"]
    assert kept(annotator="bea") == kept(disputed=True) == kept(dimension="ethics") == kept(margin=(2, 9)) == ["q2"]
    assert kept(category="mcq") == kept(dimension="faithfulness") == []
    with pytest.raises(ValueError, match="beauty"):
        kept(dimension="beauty")
    records, pairs = known()
    many = [replace(pairs[0], steps=n + 1) for n in range(50)]
    one, n = views.choose(many, records, 5, seed=1)
    assert (len(one), n) == (5, 50)
    assert one == views.choose(many, records, 5, seed=1)[0]
    assert one != views.choose(many, records, 5, seed=2)[0]
