"""Keep each stage's dependencies on the library equal to what its chapter really imports.

`python -m mmrlhf_core.pipeline.imports` rewrites the `mmrlhf_core/...` lines of dvc.yaml; a test compares them.
"""

import sys
from io import StringIO

from ruamel.yaml import YAML

from mmrlhf_core import storage
from mmrlhf_core.pipeline.chapters import PACKAGE, chapters, library_files


def main() -> int:
    """Rewrite dvc.yaml, comments kept."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10**6, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(storage.path("dvc.yaml").read_text(encoding="utf-8"))
    for chapter in chapters():
        stage = content["stages"].get(chapter.stage)
        if stage is None:
            print(f"dvc.yaml has no stage {chapter.stage!r} for {chapter.name}.", file=sys.stderr)
            return 2
        others = [dep for dep in stage["deps"] if not dep.startswith(f"{PACKAGE}/")]
        stage["deps"][:] = others + library_files(chapter)
    text = StringIO()
    yaml.dump(content, text)
    storage.write_text("dvc.yaml", text.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
