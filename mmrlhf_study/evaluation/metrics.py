"""The metrics of the paper's benchmarks as pure functions of text: they take any answer, real or from MiniWorld.

| function | benchmark it comes from |
|---|---|
| `exact_match` | VQAv2, TextVQA, RealWorldQA: equal but for case, punctuation, articles and spaces |
| `option_letter` | MMBench, MMStar, AI2D, MMMU-Pro: the option an answer chooses, by its letter or its text |
| `relaxed_match` | ChartQA: a number may be off by 5 % of the reference (Masry et al. 2022, §5.1) |
| `anls` | DocVQA, InfoVQA: 1 − normalised edit distance, 0 from a distance of ½ (Biten et al. 2019) |
| `yes_no`, `pope` | POPE: accuracy, precision, recall, F1, share of yes (Li et al. 2023) |
| `objects`, `chair` | Object-Hal: CHAIR-i, CHAIR-s (Rohrbach et al. 2018) |

A share goes from 0 to 1. Functions of sums take arrays [..., columns], so that a bootstrap can call them as they are.
"""

import math
import re
import string
import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

ARTICLES = {"a", "an", "the"}
_ANSWER = re.compile(r"\banswer\b(?:\s+is\b)?\s*:?", re.IGNORECASE)
_END = re.compile(r"(?<!\b[A-Za-z])[.!?](?=\s|$)|\n")  # of a sentence; `B. red` goes on
_WORD = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?|[^\W_]+|%")
_BRACKETED = re.compile(r"[(\[]\s*([a-z])\s*[)\]]", re.IGNORECASE)
_LEADING = re.compile(r"\s*([A-Z])\s*(?:[.):,]|$)")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.IGNORECASE)
_MARKS = string.whitespace + "".join(set(string.punctuation) - set("()%-+"))


def concluded(answer: str) -> str:
    """What an answer comes to: the rest of the sentence behind its last `answer`, or all of it where none is said."""
    *before, tail = _ANSWER.split(answer)
    return (_END.split(tail.strip(), maxsplit=1)[0] if before else tail).strip(_MARKS)


def plain(text: str) -> str:
    """Words and numbers in lower case, compatible characters made one; no punctuation, no articles."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return " ".join([word for word in words if word not in ARTICLES] or words)


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 when the conclusion is one of the references, as `plain` text; else 0."""
    said = plain(concluded(answer))
    return float(bool(said) and said in {plain(reference) for reference in references})


def option_letter(answer: str, options: Sequence[str]) -> str:
    """The one option an answer chooses, as `a`, `b`, …; blank when it chooses none, several, or one that is not there.

    A letter counts in brackets, at the start before a mark, or alone; the text of an option counts as a whole phrase,
    and not inside the text of a longer one that is also said. What stands behind the last `answer` decides.
    """
    tail, letters = concluded(answer), string.ascii_lowercase[: len(options)]
    found = {match.lower() for match in _BRACKETED.findall(tail)}
    if match := _LEADING.match(tail):
        found.add(match[1].lower())
    alone = tail.strip("()")
    if len(alone) == 1 and alone.isascii() and alone.isalpha():  # a digit is the text of an option
        found.add(alone.lower())
    said = f" {plain(_BRACKETED.sub(' ', tail))} "
    for letter, option in sorted(zip(letters, map(plain, options), strict=True), key=lambda one: -len(one[1])):
        if option and f" {option} " in said:
            found.add(letter)
            said = said.replace(f" {option} ", " ")
    return found.pop() if len(found) == 1 and found <= set(letters) else ""


def number(text: str) -> float | None:
    """The number a text is: `1,234`, `-3.5`, `1e3`, `12 %` as 0.12; None for anything else."""
    stripped = text.strip()
    bare = stripped.removesuffix("%").strip()
    if not bare or not _NUMBER.fullmatch(bare) or not any(letter.isdigit() for letter in bare.partition("e")[0]):
        return None
    value = float(bare.replace(",", "")) / (100 if stripped.endswith("%") else 1)
    return value if math.isfinite(value) else None


def relaxed_match(answer: str, references: Sequence[str], tolerance: float = 0.05) -> float:
    """1 when the conclusion is a number within `tolerance` of a reference number, or matches exactly; else 0."""
    said = number(concluded(answer))
    for reference in references:
        true = number(reference)
        if said is not None and true is not None and abs(said - true) <= tolerance * abs(true):
            return 1.0
    return exact_match(answer, [one for one in references if said is None or number(one) is None])


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: letters to insert, delete or replace."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != other))
    return row[-1]


def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """The best similarity to a reference: 1 − distance / length of the longer one; 0 from `threshold` distance on."""
    said, best = " ".join(concluded(answer).lower().split()), 0.0
    for reference in (" ".join(one.lower().split()) for one in references):
        longest = max(len(said), len(reference), 1)
        if abs(len(said) - len(reference)) < threshold * longest:  # else it cannot be near enough
            apart = edit_distance(said, reference) / longest
            best = max(best, 1 - apart if apart < threshold else 0.0)
    return best


# ---------------------------------------------------------------- yes and no


def yes_no(answer: str) -> str:
    """`yes` or `no` when the conclusion says just one of them as a word, else blank."""
    said = {"yes", "no"}.intersection(plain(concluded(answer)).split())
    return said.pop() if len(said) == 1 else ""


class Pope(NamedTuple):
    """POPE's five numbers (arrays where sums are arrays), and the share of answers that said neither yes nor no."""

    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    yes_rate: np.ndarray
    unanswered: np.ndarray


def pope_columns(said: str, true: str) -> tuple[float, float, float, float, float]:
    """(true yes, false yes, true no, false no, neither) of one answer to a question whose answer is `true`."""
    kinds = (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))
    if true not in ("yes", "no"):
        raise ValueError(f"The true answer is {true!r}; POPE's questions are answered by yes or no.")
    return *(float((said, true) == kind) for kind in kinds), float(said not in ("yes", "no"))


def pope(sums: np.ndarray, positives: np.ndarray | float) -> Pope:
    """The numbers from summed `pope_columns` [..., 5] and the number of questions whose answer is yes.

    An answer that says neither is wrong and no yes; the released POPE script counts it as a yes.
    """
    hits, false_yes, right_no, _, neither = np.moveaxis(np.asarray(sums, float), -1, 0)
    total = np.asarray(sums, float).sum(-1)
    precision, recall = _ratio(hits, hits + false_yes), _ratio(hits, positives)
    yes = _ratio(hits + false_yes, total)
    f1 = _ratio(2 * precision * recall, precision + recall)
    return Pope(_ratio(hits + right_no, total), precision, recall, f1, yes, _ratio(neither, total))


def _ratio(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """part / whole; 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) != 0)


# ---------------------------------------------------------------- objects that are not there


def objects(text: str, names: Collection[str]) -> list[str]:
    """The objects a text names, in order and as often as it does; a longer name takes its words from a shorter one."""
    words, found, at = plain(text).split(), [], 0
    longest = max((len(name.split()) for name in names), default=0)
    while at < len(words):
        for size in range(longest, 0, -1):
            name = " ".join(words[at : at + size])
            if name in names:
                found.append(name)
                break
        else:
            size = 1
        at += size
    return found


def chair_columns(named: Sequence[str], there: Collection[str]) -> tuple[float, float, float]:
    """(mentions of objects that are not there, mentions, 1 if any is not there) of one description."""
    wrong = sum(name not in there for name in named)
    return float(wrong), float(len(named)), float(wrong > 0)


def chair(sums: np.ndarray, descriptions: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """(CHAIR-i, CHAIR-s): the share of mentions, and of descriptions, that are wrong; from summed columns [..., 3]."""
    wrong, mentions, some = np.moveaxis(np.asarray(sums, float), -1, 0)
    return _ratio(wrong, mentions), _ratio(some, descriptions)
