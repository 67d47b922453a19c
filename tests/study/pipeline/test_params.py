"""The parameter file: strict reading, and profiles that show in a diff."""

import difflib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import ROOT

from mmrlhf_study.pipeline import params


def test_every_value_of_the_default_profile_carries_a_comment():
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if line.startswith("  ") and not line.strip().startswith("#"):
            assert line.count("#") >= 1, f"no comment: {line}"
            assert ";" in line.partition("#")[2], f"a comment says meaning; range; paper: {line}"


def test_what_is_read_is_what_the_file_says_in_its_order(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    read = params.read().model_dump(mode="json")
    assert list(given) == list(read)
    for section, values in given.items():
        assert list(values.items()) == list(read[section].items())


@pytest.mark.parametrize("profile", params.PROFILES[1:])
def test_a_profile_changes_its_own_lines_and_no_other(project, profile):
    before = (project / "params.yaml").read_text().splitlines()
    assert params.main([profile]) == 0
    after = (project / "params.yaml").read_text().splitlines()
    overlay = yaml.safe_load((ROOT / f"profiles/{profile}.yaml").read_text())
    changed = [d for d in difflib.ndiff(before, after) if d.startswith("+ ")]
    content = yaml.safe_load("\n".join(after))
    for section, values in overlay.items():
        for key, value in values.items():
            assert content[section][key] == value
    keys = {key for values in overlay.values() for key in values}
    assert {line[2:].partition(":")[0].strip() for line in changed} <= keys
    assert all("#" in line for line in changed), "comments stay"
    assert params.read().base.profile == profile


def test_a_second_profile_over_the_first_is_refused(project, capsys):
    assert params.main(["smoke"]) == 0
    text = (project / "params.yaml").read_text()
    assert params.main(["paper"]) == 2
    assert "git checkout params.yaml" in capsys.readouterr().err
    assert (project / "params.yaml").read_text() == text


def test_unknown_profile_and_bad_overlay(project, capsys):
    assert params.main(["smok"]) == 2
    assert "'smoke'" in capsys.readouterr().err
    (project / "profiles/smoke.yaml").write_text("base:\n  sed: 3\n")
    before = (project / "params.yaml").read_text()
    assert params.main(["smoke"]) == 2
    message = capsys.readouterr().err
    assert "'sed'" in message
    assert "'seed'" in message
    assert (project / "params.yaml").read_text() == before


GOOD = yaml.safe_load((ROOT / "params.yaml").read_text())


def good() -> dict:
    return {name: dict(section) for name, section in GOOD.items()}


@given(st.sampled_from(["profile", "seed", "threads"]), st.text(max_size=8) | st.none() | st.booleans() | st.floats())
def test_any_wrong_value_is_an_error_that_names_it(key, value):
    content = good()
    if type(value) is str and key == "profile" and value in params.PROFILES:
        return
    content["base"][key] = value
    with pytest.raises(params.ParamsError, match=rf"base\.{key}: "):
        params.parse(content)


def changed(section: str, **values: object) -> params.Params:
    content = good()
    content[section] |= values
    return params.parse(content)


def test_integers_are_accepted_for_numbers_and_lists_become_tuples():
    read = changed("mm_dpo", sft_weight=1, families=["a", "b"])
    assert type(read.mm_dpo.sft_weight) is float
    assert read.mm_dpo.families == ("a", "b")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rate": "1e-3"}, "1.0e-3"),  # what helps
        ({"dtype": True}, r"mm_dpo\.dtype"),
        ({"media": False}, "quotes"),
        ({"epochs": float("nan")}, r"mm_dpo\.epochs"),
        ({"queries": 2.0}, r"mm_dpo\.queries"),
        ({"checkpointing": 1}, r"mm_dpo\.checkpointing"),
        ({"arms": "dpo"}, r"mm_dpo\.arms"),
        ({"sft_weights": [0.1, "x"]}, r"mm_dpo\.sft_weights\.1"),
    ],
)
def test_nothing_is_converted(values, named):
    with pytest.raises(params.ParamsError, match=named):
        changed("mm_dpo", **values)
