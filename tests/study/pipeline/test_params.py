"""The parameter file: strict reading, and profiles that show in a diff."""

import difflib
from dataclasses import asdict, fields

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


def test_sections_of_the_file_are_the_dataclasses(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert list(given) == [field.name for field in fields(params.Params)]
    read = asdict(params.read())
    for section, values in given.items():
        assert list(values) == list(read[section])


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
    assert "Did you mean 'smoke'?" in capsys.readouterr().err
    (project / "profiles/smoke.yaml").write_text("base:\n  sed: 3\n")
    before = (project / "params.yaml").read_text()
    assert params.main(["smoke"]) == 2
    assert "base: unknown name 'sed'. Did you mean 'seed'?" in capsys.readouterr().err
    assert (project / "params.yaml").read_text() == before


def good() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@given(st.sampled_from(["profile", "seed", "threads"]), st.text(max_size=8) | st.none() | st.booleans() | st.floats())
def test_any_wrong_value_is_an_error_that_names_it(key, value):
    content = good()
    if type(value) is str and key == "profile" and value in params.PROFILES:
        return
    content["base"][key] = value
    with pytest.raises(params.ParamsError, match=rf"base\.{key}: "):
        params.parse(content)


def test_integers_are_accepted_for_numbers_and_lists_become_tuples():
    assert params._convert("x", 3, params.Annotated[float, params.Range(0, 5)]) == 3.0
    assert params._convert("x", [1, 2], tuple[int, ...]) == (1, 2)
    with pytest.raises(params.ParamsError, match=r"x\[1\]: 'a' is str, not int"):
        params._convert("x", [1, "a"], tuple[int, ...])
    with pytest.raises(params.ParamsError, match="Put it in quotes"):
        params._convert("x", True, str)


def test_values_with_spaces_lists_and_hashes_survive_a_profile():
    text = "base:\n  a: 1  # one; two\n  b: [1, 2]  # list; x\nother:\n  a: 5  # stays; y\n"
    new = params._replace_values(text, {"base": {"a": "x y", "b": ["p", "q"]}})
    assert yaml.safe_load(new) == {"base": {"a": "x y", "b": ["p", "q"]}, "other": {"a": 5}}
    assert new.count("#") == 3
