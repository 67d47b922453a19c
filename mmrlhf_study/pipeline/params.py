"""`params.yaml`, read strictly: one section per stage, whose names and ranges are in `sections`.

`python -m mmrlhf_study.pipeline.params` checks the file; with a profile's name, such as `smoke`, it applies
`profiles/smoke.yaml`.
"""

import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mmrlhf_core.data import storage
from mmrlhf_core.data.names import NamesError, nearest
from mmrlhf_study.pipeline.sections import PROFILES, Params


class ParamsError(NamesError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


def _names(place: tuple[int | str, ...]) -> list[str]:
    """The names that are known at a place of the file: sections, or parameters of a section."""
    fields = Params.model_fields
    return list(fields if len(place) == 1 else fields[str(place[0])].annotation.model_fields)  # type: ignore[union-attr]


def _sentence(error: ErrorDetails) -> str:
    """What pydantic found, with the place, what was given, and what helps."""
    *above, name = place = error["loc"]
    where, given = ".".join(map(str, above)) or "params.yaml", error["input"]
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown name {name!r}. {nearest(str(name), _names(place))}"
    if error["type"] == "missing":
        return f"{where}: {name!r} is missing. Every name of the section has to be given."
    hint = ""
    if isinstance(given, str) and error["type"] in ("int_type", "float_type"):
        hint = " Write it without quotes, as in 0.001 or 1.0e-3."
    elif error["type"] == "string_type":
        hint = " Put it in quotes."
    return f"{'.'.join(map(str, place))}: {given!r} is not allowed. {error['msg']}.{hint}"


def load_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of sections; broken YAML, or a key given twice, is an error with its line."""
    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{file} is not there. It holds the parameters of all stages.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).partition("To suppress")[0].split())
        raise ParamsError(f"{file.name} is not readable YAML: {text}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{file.name} holds no sections. It needs 'base:' and one section per stage.")
    return content


def parse(content: Mapping[str, Any]) -> Params:
    """Sections as they come from YAML, validated. Of several errors an unknown name is reported first."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        errors = error.errors()
        unknown = [found for found in errors if found["type"] == "extra_forbidden"]
        raise ParamsError(_sentence((unknown or errors)[0])) from None


def read(file: str | Path = "params.yaml") -> Params:
    """Read and validate the parameters of all stages."""
    return parse(load_yaml(storage.path(file)))


def merge(content: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the sections and keys of `overlay` put over it; a key `content` lacks is an error."""
    merged = {name: dict(section) for name, section in content.items()}
    for name, section in overlay.items():
        if name not in merged:
            raise ParamsError(f"unknown section {name!r}. {nearest(name, merged)}")
        for key, value in section.items():
            if key not in merged[name]:
                raise ParamsError(f"{name}: unknown name {key!r}. {nearest(key, merged[name])}")
            merged[name][key] = value
    return merged


def apply_profile(name: str) -> None:
    """Write `profiles/<name>.yaml` over `params.yaml`, comments kept, so that `git diff` shows the change."""
    if name not in PROFILES[1:]:
        raise ParamsError(f"no profile {name!r}. {nearest(name, PROFILES[1:])}")
    content = load_yaml(storage.path("params.yaml"))
    current = parse(content).base.profile
    if current != PROFILES[0]:
        raise ParamsError(
            f"params.yaml is in profile {current!r} already. Go back to the default first: git checkout params.yaml"
        )
    overlay = load_yaml(storage.path(f"profiles/{name}.yaml"))
    parse(merge(content, overlay))
    storage.write_text("params.yaml", _replaced(storage.path("params.yaml"), storage.path(f"profiles/{name}.yaml")))


def _replaced(file: Path, overlay: Path) -> str:
    """The text of `file` with the values of `overlay` in place; comments and everything else stay."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10**6, True
    content = yaml.load(file)
    for section, values in yaml.load(overlay).items():
        content[section].update(values)
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def main(arguments: list[str]) -> int:
    """No argument checks `params.yaml`, one applies that profile."""
    try:
        if arguments:
            apply_profile(arguments[0])
        print(f"params.yaml is valid, profile {read().base.profile!r}.")
    except (ParamsError, OSError) as error:
        print(f"params: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
