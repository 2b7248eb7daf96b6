r"""What a classifier gets wrong: accuracy by what stands in a pair, and its answers when one word is exchanged.

    python benchmarks/mistakes.py --data snli/ --models models/sbert_nli_strong --control models/sbert_nli_control

The first table parts the test pairs by words: negations, numbers, quantifiers; hypotheses whose words all stand in the
premise, so that only their order or what is left out can tell; and, if a control is given (trained and evaluated on
emptied premises), the pairs that it gets right and wrong, which are those that need no premise and those that do.

The second takes the entailed pairs that a model gets right and that share a word with a known opposite (outside,
inside). With the word exchanged in one of the two sentences, the hypothesis is not entailed any more; the table has the
share of pairs where the model says so. With several models, each figure is their mean, then the least and the greatest.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder

from minibert.config import LABELS
from minibert.data.pairs import Pairs, load_pairs
from minibert.hub import load_classifier

NEGATIONS = {"no", "not", "n't", "nobody", "nothing", "none", "never", "without", "neither", "nor", "cannot"}
NUMBERS = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}
QUANTIFIERS = {"all", "every", "each", "both", "some", "any", "most", "many", "few", "several", "half"}

# Words that exclude each other where both could stand.
_OPPOSITES = """
    man woman, men women, boy girl, boys girls, male female, father mother, young old, black white, red blue
    green yellow, outside inside, outdoors indoors, sitting standing, walking sleeping, eating dancing, happy sad
    smiling crying, dog cat, dogs cats, guitar piano, bike car, bicycle truck, day night, summer winter
    beach desert, street kitchen, water sand, two five, three six, empty crowded, wet dry, up down
"""
OPPOSITES: dict[str, str] = {}
for _a, _b in (pair.split() for pair in _OPPOSITES.replace("\n", ",").split(",") if pair.strip()):
    OPPOSITES |= {_a: _b, _b: _a}


def words(text: str) -> list[str]:
    """Lower-case words, with n't by itself."""
    return re.findall(r"n't|[a-z]+(?=n't)|[a-z]+|[0-9]+", text.lower())


def groups(pairs: Pairs) -> dict[str, NDArray[np.bool_]]:
    """Which of the pairs belong to which group, (pairs,) each."""
    sides = [(set(words(one)), set(words(other))) for one, other in zip(pairs.premises, pairs.hypotheses, strict=True)]

    def where(test: Callable[[set[str], set[str]], bool]) -> NDArray[np.bool_]:
        return np.array([test(premise, hypothesis) for premise, hypothesis in sides])

    return {
        "all pairs": where(lambda p, h: True),
        "a negation in the hypothesis": where(lambda p, h: bool(h & NEGATIONS)),
        "a number in the hypothesis": where(lambda p, h: bool(h & NUMBERS) or any(map(str.isdigit, h))),
        "a quantifier in the hypothesis": where(lambda p, h: bool(h & QUANTIFIERS)),
        "all words of the hypothesis in the premise": where(lambda p, h: h <= p),
        "no word of the hypothesis in the premise": where(lambda p, h: not h & p),
        "a hypothesis of more than ten words": np.array([len(words(text)) > 10 for text in pairs.hypotheses]),
    }


def exchanged(premise: str, hypothesis: str) -> tuple[str, str] | None:
    """Both sentences with the first word that they share and that has an opposite exchanged for it; None without."""
    shared = set(words(premise)) & set(words(hypothesis)) & OPPOSITES.keys()
    for word in words(hypothesis):
        if word in shared and OPPOSITES[word] not in words(premise) + words(hypothesis):
            pattern = re.compile(rf"\b{word}\b", re.IGNORECASE)
            new_premise, new_hypothesis = (pattern.sub(OPPOSITES[word], text) for text in (premise, hypothesis))
            return new_premise, new_hypothesis
    return None


def noticed(folder: Path, pairs: Pairs, answers: NDArray[np.int64]) -> tuple[int, float, float]:
    """Pairs with an exchanged word, and the shares of them where the answer is not entailment any more.

    Returns:
        how many; the share with the premise's word exchanged, and that with the hypothesis'.
    """
    entailed = LABELS.index("entailment")
    right = np.flatnonzero((pairs.labels == entailed) & (answers == entailed))
    changed = [(index, both) for index in right if (both := exchanged(pairs.premises[index], pairs.hypotheses[index]))]
    if not changed:
        return 0, float("nan"), float("nan")
    model = load_classifier(folder)
    by_premise = model.predict([new for _, (new, _) in changed], [pairs.hypotheses[index] for index, _ in changed])
    by_hypothesis = model.predict([pairs.premises[index] for index, _ in changed], [new for _, (_, new) in changed])
    first, second = (float((prediction.labels != entailed).mean()) for prediction in (by_premise, by_hypothesis))
    return len(changed), first, second


def spread(values: list[float]) -> str:
    """A mean, and the least and the greatest of several."""
    text = f"{np.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Read the flags, let the models answer, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="hub", help="as evaluate.py takes it")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders, for instance of three seeds")
    parser.add_argument("--control", type=Path, help="a folder trained with --hypothesis-only")
    options = parser.parse_args()
    pairs = load_pairs(options.data, options.split, max_pairs=0, seed=0)
    answers = {
        folder: load_classifier(folder).predict(pairs.premises, pairs.hypotheses).labels
        for folder in dict.fromkeys([*options.models, *([options.control] if options.control else [])])
    }
    parts = groups(pairs)
    if options.control:
        control_right = answers[options.control] == pairs.labels
        parts |= {"the control is right": control_right, "the control is wrong": ~control_right}
    print("| pairs | how many | accuracy |" + (" control |" if options.control else ""))
    print("| --- | --- | --- |" + (" --- |" if options.control else ""))
    for name, inside in parts.items():
        right = [float((answers[folder] == pairs.labels)[inside].mean()) for folder in options.models if inside.any()]
        row = [name, f"{inside.sum():,}", spread(right) if right else ""]
        if options.control:
            row.append(f"{float(control_right[inside].mean()):.3f}" if inside.any() else "")
        print(f"| {' | '.join(row)} |")
    found = [noticed(folder, pairs, answers[folder]) for folder in options.models]
    print("\n| entailed pairs with a word exchanged | how many | no longer entailment |\n| --- | --- | --- |")
    counts = " to ".join(f"{count:,}" for count in sorted({min(f[0] for f in found), max(f[0] for f in found)}))
    for place, side in ((1, "premise"), (2, "hypothesis")):
        print(f"| in the {side} | {counts} | {spread([each[place] for each in found])} |")


if __name__ == "__main__":
    main()
