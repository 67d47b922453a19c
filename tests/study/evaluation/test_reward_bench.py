"""ACC and ACC+ as published, baselines beside them, and the known faults of the published scripts kept out."""

import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.rollout.score import Margin
from mmrlhf_study.evaluation import reward_bench as bench

PAIRS_PER_ID = {2: 11, 3: 13, 4: 6, 5: 11, 6: 5}  # of the published file: 46 ids, 170 pairs


def row(name, chosen, rejected, image=None, video=None, prompt="what ?", **more):
    media = {"image": image, "video": video} if image is None or video is None else {}
    return {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected, **media, **more}


ROWS = [
    row("a", "a long answer", "short", image="long/1.png"),
    row("a", "a long answer", "a longer answer still", image="long/1.png"),
    row("b", "yes", "no way", image="mcq/2.png"),
    row("c", "it jumps", "it sits", video="video/longjump_1"),
    row("c", "it jumps", "it", video="video/longjump_1"),
    row("c", "it sits", "it", video="video/longjump_1"),
]


VL = {"mathverse_1": "reasoning", "mmmu_pro_test_Art_6": "reasoning", "hallucination_pair-1": "hallucination",
      "RLAIF-V-14": "hallucination", "RLHF-V-31": "hallucination", "wildvision-battle-13": "general",
      "jailbreak-Fraud-29": "general", "LRVInstruction-7": "general"}  # fmt: skip


def write(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def found(tmp_path):
    return bench.read(write(tmp_path / "bench.jsonl", ROWS))


def released(lines):
    """ACC and ACC+ as the released script counts them."""
    right = [line["rewards"][0] > line["rewards"][1] for line in lines]
    ids = {}
    for line, good in zip(lines, right, strict=True):
        ids[line["id"]] = ids.get(line["id"], True) and good
    return sum(right) / len(right), sum(ids.values()) / len(ids)


# what is counted


def test_shares_worked_by_hand(found):
    # a: right, wrong; b: right; c: three right → 5 of 6 pairs, 2 of 3 queries
    scores = [(1, 0), (0, 1), (3, 2), (0.5, 0.4), (1, 0), (9, -9)]
    assert bench.shares(found, scores) == (5 / 6, 2 / 3)
    made = bench.table(found, scores).set_index("category")
    assert list(made.index) == ["long", "mcq", "video", "all"]
    assert (made.acc["long"], made.acc_plus["long"]) == (0.5, 0)
    assert (made.pairs["video"], made.queries["video"], made.acc_plus["video"]) == (3, 1, 1)
    assert made.acc_low["all"] < 5 / 6 < made.acc_high["all"]
    assert made.acc_plus_low["all"] < 2 / 3 < made.acc_plus_high["all"]
    for few in (scores[:0], scores[:1]):
        with pytest.raises(ValueError, match="6 pairs"):
            bench.table(found, few)


NUMBERS = st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, math.nan]) | st.floats(-9, 9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=len(ROWS), max_size=len(ROWS)))
def test_random_scores_with_ties_and_nan_are_counted_as_the_released_scripts_count_them(scores):
    """RewardBench's ACC and ACC+, and VL-RewardBench's shares, which its script means to count in the same way."""
    items = [bench.RewardItem(r["id"], r["id"], "long", r["prompt"], r["chosen"], r["rejected"]) for r in ROWS]
    lines = [{**line, "rewards": list(pair)} for line, pair in zip(ROWS, scores, strict=True)]
    assert bench.shares(items, scores) == released(lines)
    overall = bench.table(items, scores).set_index("category").loc["all"]
    assert (overall.acc, overall.acc_plus) == released(lines)
    assert overall["nan"] == sum(a != a or b != b for a, b in scores)
    assert overall.ties == sum(a == b for a, b in scores)
    names = list(VL)[: len(ROWS)]
    vl = [bench.RewardItem(name, name, bench.vl_category(name), "?", "a", "b") for name in names]
    hits: dict[str, list[bool]] = {}
    for name, (r_w, r_l) in zip(names, scores, strict=True):
        hits.setdefault(VL[name], []).append(r_w > r_l)
    per_category = [sum(part) / len(part) for part in hits.values()]
    micro, macro = bench.micro_macro(bench.table(vl, scores))
    assert micro == sum(r_w > r_l for r_w, r_l in scores) / len(scores)
    assert macro == pytest.approx(sum(per_category) / len(per_category))


def test_baselines_stand_beside_every_number(found):
    made = bench.table(found, [(1.0, 0.0)] * 6).set_index("category")
    # lengths: a 13>5, 13<21; b 3<6; c 8>7, 8>2, 7>2 → 4 of 6 pairs, 1 of 3 queries; coins: (1/4 + 1/2 + 1/8) / 3
    assert (made.length_acc["all"], made.length_acc_plus["all"]) == (4 / 6, 1 / 3)
    assert (made.chance_acc["all"], made.chance_acc_plus["all"]) == (0.5, pytest.approx(0.875 / 3))
    assert made.chance_acc_plus["mcq"] == 0.5
    found = [
        bench.RewardItem(f"{n}-{i}", f"{n}-{i}", "long", "?", "a", f"b{k}")
        for n, ids in PAIRS_PER_ID.items() for i in range(ids) for k in range(n)
    ]  # fmt: skip
    assert (len({item.query for item in found}), len(found)) == bench.PUBLISHED_COUNTS["all"]
    assert bench.chance(found) == (0.5, pytest.approx(0.112, abs=5e-4))


def test_queries_and_pairs_are_held_against_the_published_ones(found):
    lines = {line.partition(":")[0]: [int(word) for word in line.replace(",", "").split() if word.isdigit()]
             for line in bench.differences(found)}  # fmt: skip
    assert lines["all"] == [3, 6, 46, 170]
    assert lines["short"] == [0, 0, 10, 34]
    whole = [
        bench.RewardItem(f"{c}{n % ids}", f"{c}{n % ids}", c, "?", "a", f"b{n}")
        for c, (ids, pairs) in bench.PUBLISHED_COUNTS.items() if c != "all" for n in range(pairs)
    ]  # fmt: skip
    assert bench.differences(whole) == []


def test_our_own_margins_are_joined_by_name(found):
    margins = [Margin(item.query, *item.names, float(n), 2.5) for n, item in enumerate(found)]
    assert bench.of_margins(found, margins[::-1]) == [(float(n), 2.5) for n in range(6)]
    with pytest.raises(ValueError, match=r"1 missing, 0 unknown, 0 repeated.*'a'"):
        bench.of_margins(found, margins[1:])


# faults of the published scripts


def test_a_category_is_the_first_part_of_the_path_and_null_media_are_read(found):
    """`video/longjump_1` contains "long", where the released script files it; it also fails at `image: null`."""
    assert all(line["image"] is None for line in ROWS[3:])
    assert [item.category for item in found] == ["long"] * 2 + ["mcq"] + ["video"] * 3


def test_pairs_lost_by_resuming_are_noticed(found, tmp_path):
    """The released evaluation skips ids it has seen, and loses the other pairs of the id it was stopped at."""
    lines = [{**line, "rewards": [1, 0]} for line in ROWS]
    with pytest.raises(ValueError, match=r"2 missing, 0 unknown, 0 repeated.*'c'"):
        bench.read_scores(write(tmp_path / "s.jsonl", lines[:4]), found)
    with pytest.raises(ValueError, match="0 missing, 0 unknown, 1 repeated"):
        bench.read_scores(write(tmp_path / "s.jsonl", [*lines, lines[0]]), found)
    with pytest.raises(ValueError, match="1 missing, 1 unknown"):
        bench.read_scores(write(tmp_path / "s.jsonl", [{**lines[0], "chosen": "other"}, *lines[1:]]), found)
    assert bench.read_scores(write(tmp_path / "s.jsonl", lines[::-1]), found) == [(1.0, 0.0)] * 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *(
            ({"rewards": bad}, "two numbers")
            for bad in ([1.0], [], [1.0, 2.0, 3.0], ["1", "2"], [None, 1.0], [True, 0])
        ),
        *(({"rewards": bad}, "two numbers") for bad in ("10", None, [[1], 0])),  # the released VL script reads these
        ({"rewards": [[[[[[[[0]]]]]]], 0]}, "`rewards`"),
        ({"id": ["a"]}, "`id`"),  # a list has no hash
        ({"prompt": {"text": "what ?"}}, "`prompt`"),
        ({"chosen": None}, "`chosen`"),
        ({"rejected": 5}, "`rejected`"),
        ("[1, 2]", ""),
        ("7", ""),
    ],
)
def test_an_unusable_row_of_scores_is_named_with_its_field(found, tmp_path, change, named):
    lines = [json.dumps({**line, "rewards": [1, 0]}) for line in ROWS]
    lines[2] = change if type(change) is str else json.dumps(json.loads(lines[2]) | change)
    (tmp_path / "s.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"Row 3 .*{named}") as caught:
        bench.read_scores(tmp_path / "s.jsonl", found)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_the_vl_split_ignores_case(tmp_path):
    """Case-sensitive, 301 RLAIF-V and RLHF-V ids of the published file leak into "general" (484 instead of 183)."""
    lines = [row(name, "a", "b b", image=f"vl_reward/img/{n}.jpg") for n, name in enumerate(VL)]
    found = bench.read(write(tmp_path / "vl.jsonl", lines), vl=True)
    assert {item.id: item.category for item in found} == VL
    scores = [(float(item.category == "general"), 0.0) for item in found]
    micro, macro = bench.micro_macro(bench.table(found, scores))
    assert (micro, macro) == (3 / 8, pytest.approx(1 / 3))
    families = {"hallucination_pair-": 448, "RLAIF-V-": 233, "wildvision-": 173, "mathverse_": 167, "mmmu_pro_": 151,
                "RLHF-V-": 68, "svit-": 10}  # fmt: skip
    counts = Counter()
    for name, number in families.items():
        counts[bench.vl_category(name)] += number
    assert counts == {"general": 183, "hallucination": 749, "reasoning": 318}


# judges of pairs


def test_only_a_judge_of_content_is_consistent(found):
    """The released judges show the better response first every time, so this one would get everything."""
    ways = bench.judge_both_ways(lambda item, first, second: 1, found)
    assert ways.summary() == {
        "consistent": 0, "right_better_first": 1, "right_better_second": 0, "prefers_first": 1, "no_verdict": 0
    }  # fmt: skip
    made = bench.table(found, ways.scores()).set_index("category")
    assert (made.acc["all"], made.ties["all"]) == (0, 6)
    better = {item.chosen for item in found} - {item.rejected for item in found}

    def judge(item, first, second):
        return 1 if first in better else 2 if second in better else None

    ways = bench.judge_both_ways(judge, found)
    assert ways.better_first == ways.better_second == (True, True, True, True, True, None)
    assert ways.summary()["consistent"] == ways.summary()["right_better_second"] == 5 / 6
    assert ways.summary()["prefers_first"] == 0.5
    assert ways.summary()["no_verdict"] == 1 / 6
    assert bench.shares(found, ways.scores()) == (5 / 6, 2 / 3)
    wrong = bench.judge_both_ways(lambda *asked: {1: 2, 2: 1}.get(judge(*asked)), found)
    assert bench.shares(found, wrong.scores()) == (0, 0)
    with pytest.raises(ValueError, match="'1'"):
        bench.judge_both_ways(lambda *_: "1", found)
