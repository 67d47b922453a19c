"""Questions about scenes. The reference answer first describes what is there (the evidence) and then concludes.

`ask(scene, task, form)` makes a question. Its id holds family, seed, task and form, so `question(id)` makes it again.
Classes follow the paper: `safety` and `video` by content, `mcq` for questions with lettered options, `long` where the
reference answer has more than 128 characters, `short` for the others.
"""

import re
from dataclasses import dataclass
from random import Random

from mmrlhf_study.miniworld import claims
from mmrlhf_study.miniworld.scenes import ATTRIBUTES, ORDERS, Fact, Scene, draw
from mmrlhf_study.miniworld.tasks import CHANGES, DIRECTIONS, LETTERED_TASKS, TASKS, YES_NO, unique

LONG_ANSWER = 128  # characters; a longer reference makes a long question
FORMS = ("open", "mcq")
LETTERS = ("(a)", "(b)", "(c)", "(d)")
OPENING = {  # the first words of a description
    "shapes": "the picture shows the following shapes :",
    "tiles": "the picture shows the following shapes :",
    "chart": "the picture shows the following bars :",
    "sign": "the sign shows the following :",
    "clip": "the clip shows the following shapes :",
    "pair": "the pictures show the following shapes :",
}


@dataclass(frozen=True)
class Question:
    """One question and everything that is needed to check an answer to it."""

    id: str
    scene: Scene
    task: str
    category: str  # class of the paper: long, short, mcq, safety or video; blank for checks of claims
    dimension: str  # one of the ten of the paper; blank for checks of claims
    prompt: str
    answer: str  # the reference answer: the evidence, then the conclusion
    key: str  # the conclusion alone; blank for descriptions
    domain: tuple[str, ...]  # possible conclusions
    options: tuple[str, ...]  # the lettered options
    evidence: tuple[str, ...]  # places that a full answer describes
    decline: bool  # whether the reference answer declines

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts that a full answer states."""
        return tuple(Fact(place, self.scene.at(place)) for place in self.evidence)


def tasks(scene: Scene, form: str = "open") -> tuple[str, ...]:
    """The tasks that a scene allows; a private sign allows safety tasks only."""
    return tuple(
        task for task in TASKS[scene.family] if _allowed(scene, task) and (form == "open" or task in LETTERED_TASKS)
    )


def _allowed(scene: Scene, task: str) -> bool:
    if scene.family == "sign" and task in ("describe", "number", "word"):
        return "private" not in scene.at("top")
    if task == "tempt":
        return "say" in scene.at("foot")
    if task == "obey":
        return "read" in scene.at("foot")
    return task != "find" or bool(unique(scene))


def ask(scene: Scene, task: str, form: str = "open") -> Question:
    """The question of this task about this scene; `form` is `open` or `mcq` (two to four lettered options)."""
    if form not in FORMS:
        raise ValueError(f"No form {form!r}. Forms: {', '.join(FORMS)}.")
    if task not in tasks(scene, form):
        allowed = ", ".join(tasks(scene, form))
        raise ValueError(f"No {form} task {task!r} for {scene.family} {scene.seed}. Tasks: {allowed}.")
    dimension, write = TASKS[scene.family][task]
    name = f"{scene.family}-{scene.seed}-{task}-{form}"
    rng = Random(f"question {name}")
    draft, options = write(scene, rng), ()
    if form == "mcq":
        others = [word for word in draft.domain if word != draft.key]
        chosen = [draft.key, *rng.sample(others, min(3, len(others)))]
        options = tuple(rng.sample(chosen, len(chosen)))
    prompt = f"{draft.prompt} {listed(options)}".strip()
    facts = [Fact(place, scene.at(place)) for place in draft.evidence]
    answer = compose(scene.family, facts, draft.key, draft.decline)
    category = _category(scene.family, dimension, options, answer)
    rest = (prompt, answer, draft.key, draft.domain, options, draft.evidence, draft.decline)
    return Question(name, scene, task, category, dimension, *rest)


def question(name: str) -> Question:
    """The question with this id. What follows a `~` (the mark of a near-duplicate) is ignored."""
    match name.partition("~")[0].split("-"):
        case [family, seed, task, form] if seed.isdecimal():
            return ask(draw(int(seed), family), task, form)
    raise ValueError(f"No question {name!r}. Ids look like shapes-17-count-open: family, seed, task, form.")


def compose(family: str, facts: list[Fact], key: str, decline: bool = False) -> str:
    """The text of an answer: the evidence, then the conclusion. A description has an opening and no conclusion.

    An answer names a lettered option by its words, not by its letter: miniature models do not learn the letters in
    minutes.
    """
    evidence = " ".join(f"{fact} ." for fact in facts)
    if decline:
        return f"{evidence} so i must decline .".strip()
    if not key:
        return f"{OPENING[family]} {evidence}"
    return f"{evidence} so the answer is {key} .".strip()


def listed(options: tuple[str, ...]) -> str:
    """`(a) red (b) blue (c) green (d) black`."""
    return " ".join(f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=False))


def verify(scene: Scene, seed: int, n: int = 3) -> Question:
    """Up to `n` claims to check, half of them false; the answer compares each with the scene and gives the verdict."""
    rng = Random(f"verify {scene.family} {scene.seed} {seed}")
    true = claims.choose(rng, scene, n)
    stated = [claims.falsify(rng, scene, fact) if rng.random() < 0.5 else fact for fact in true]
    prompt = "check : " + " ".join(f"{claim} ." for claim in stated)
    answer = " ".join(lookup(claim, scene) for claim in stated)
    key = " ".join("right" if claims.holds(claim, scene) else "wrong" for claim in stated)
    name = f"{scene.family}-{scene.seed}-verify-{seed}"
    places = tuple(claim.place for claim in stated)
    return Question(name, scene, "verify", "", "", prompt, answer, key, ("right", "wrong"), (), places, False)


def lookup(claim: Fact, scene: Scene) -> str:
    """A claim compared with the scene, as `looked_up` writes it."""
    return looked_up(claim.place, scene.at(claim.place), claim.thing, claims.holds(claim, scene))


def looked_up(place: str, there: str, thing: str, right: bool) -> str:
    """`at b3 small ? large no blue ? blue yes circle ? circle yes : wrong .`

    For each word: what is there, what was claimed, and whether they are equal. Small models learn to compare two words
    long before they learn to compare two phrases. Phrases of different length are compared whole: `nothing ? a red bar
    of 4`. What is there comes first, so that the model describes the picture before it repeats a claim.
    """
    true, claimed = claims.telling(there), claims.telling(thing)
    compared = f"{there} ? {thing}"
    if len(true) == len(claimed) and (true == claimed) == right:
        words = zip(true, claimed, strict=True)
        compared = " ".join(f"{seen} ? {word} {'yes' if seen == word else 'no'}" for seen, word in words)
    return f"at {place} {compared} : {'right' if right else 'wrong'} ."


def compared(text: str) -> tuple[str, str]:
    """What is there and what was claimed, read from the part between place and colon in the text of `looked_up`."""
    words = re.findall(r"(\S+) \? (\S+) (?:yes|no)\b", text)
    there, thing = (" ".join(column) for column in zip(*words, strict=True)) if words else text.split("?", 1)
    return there, thing


def vocabulary() -> tuple[str, ...]:
    """Every word of every prompt, answer and critique, sorted."""
    texts = (*claims.PLACE_NAMES, *ORDERS, *claims.NUMBERS, *LETTERS, *YES_NO, *CHANGES, *DIRECTIONS.values())
    texts += (*(word for group in ATTRIBUTES for word in group), *OPENING.values(), _TEMPLATES)
    return tuple(sorted({word for text in texts for word in text.split()}))


_TEMPLATES = """
. ? : , at a the of is it so i must decline answer check right wrong missing or nothing bar word number text
describe tell me about picture pictures clip sign what colour shape shapes there how many are tall which taller
tallest plus read aloud here my private question do foot says this way does move first last where changed same in both
one two"""


def _category(family: str, dimension: str, options: tuple[str, ...], answer: str) -> str:
    if dimension == "safety" or family == "clip":
        return "safety" if dimension == "safety" else "video"
    return "mcq" if options else "long" if len(answer) > LONG_ANSWER else "short"
