"""The toy data set: a small generated world, so that every script runs without a download.

It is a teaching aid, not a benchmark: a score on it shows that the code learns, and says nothing about English.

The world. A scene holds one creature and what is true of it: its kind, its size, what it wears, what it does, where and
when. The terms of each of these six slots form a tree, `TAXONOMY`: a poodle is a dog, a dog is an animal, an animal is
a creature; in the park is outdoors. A sentence states a few slots of a scene, each by one term of its tree.

The labels follow. Let a hypothesis claim a term, and let the premise state a term of the same slot:

* entailment: the premise's term lies at or below the claim (a poodle is a dog);
* neutral: it lies above the claim (an animal need not be a dog); a slot that the premise leaves out counts as its root;
* contradiction: it lies on another branch (a swan is no dog). Only branches shut each other out: two leaves of one
  branch may both be true (a nurse may be a woman), and so are never set against each other.

The controls stay low by construction. Pairs are made nine at a time: three premises meet three hypotheses, and the
labels form a Latin square, so that each sentence carries each label exactly once. Whatever looks at one side alone is
right one time in three, however clever it is. Counting shared words helps little more: what is entailed is mostly said
by a more general term or a synonym, and the creature is named alike under all three labels.

The articles define the terms of the same world and draw conclusions from scenes, so pretraining on them teaches what
the pairs ask for.
"""

import random
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from minibert.config import LABELS

ENTAILMENT, NEUTRAL = LABELS.index("entailment"), LABELS.index("neutral")
SIZES: Mapping[str, int] = MappingProxyType({"train": 12000, "validation": 1000, "test": 2000})
SLOTS = ("creature", "size", "dress", "activity", "place", "time")

# Each term and the terms right below it. A slot is the root of its own tree, and sentences spell a term as here.
TAXONOMY: dict[str, tuple[str, ...]] = {
    "creature": ("animal", "person"), "animal": ("dog", "horse", "bird"), "person": ("child", "adult"),
    "dog": ("poodle", "beagle", "terrier", "spaniel"), "horse": ("mare", "stallion", "filly", "mustang"),
    "bird": ("duck", "goose", "swan", "gull"),
    "child": ("boy", "girl", "pupil", "scout"), "adult": ("man", "woman", "farmer", "nurse"),
    "size": ("small", "big"), "small": ("tiny", "miniature"), "big": ("huge", "giant"),
    "dress": ("in bright clothes", "in dark clothes"),
    "in bright clothes": ("in red", "in yellow", "in orange", "in pink"),
    "in dark clothes": ("in black", "in brown", "in navy", "in maroon"),
    "activity": ("resting", "active"),
    "resting": ("sleeping", "dozing", "napping", "lying still"), "active": ("walking", "running", "jumping", "dancing"),
    "place": ("outdoors", "indoors"),
    "outdoors": ("in the park", "in the garden", "in the forest", "in the street", "on the beach"),
    "indoors": ("in the kitchen", "in the library", "in the hall", "in the attic", "in the cellar"),
    "time": ("by day", "at night"),
    "by day": ("in the morning", "at breakfast", "at noon", "in the afternoon"),
    "at night": ("at midnight", "at bedtime", "after sunset", "before sunrise"),
}  # fmt: skip
PARENTS = {below: term for term, terms in TAXONOMY.items() for below in terms}

SYNONYMS: dict[str, tuple[str, ...]] = {
    "animal": ("beast",), "person": ("human",), "dog": ("hound",), "child": ("youngster",), "adult": ("grownup",),
    "small": ("little",), "tiny": ("teeny",), "big": ("large",), "huge": ("enormous",), "giant": ("gigantic",),
    "in bright clothes": ("in bright colours",), "in dark clothes": ("in dark colours",),
    "resting": ("at rest", "taking a rest"), "sleeping": ("asleep",), "active": ("on the move", "moving about"),
    "walking": ("strolling",), "running": ("racing",), "jumping": ("leaping",),
    "outdoors": ("outside", "in the open air"), "indoors": ("inside", "under a roof"),
    "in the forest": ("in the woods",), "in the street": ("on the road",),
    "by day": ("in the daytime", "in daylight"), "at noon": ("at midday",),
    "at night": ("by night", "during the night"),
}  # fmt: skip

# What the articles say about a slot's terms: {above} is a term above it, {rival} a branch that this shuts out.
_STATES = "whoever is {term} is {above} and never {rival}", "to be {term} is to be {above}, not {rival}"
_CIRCUMSTANCES = (
    "what happens {term} happens {above} and never {rival}", "whoever is seen {term} is seen {above}, not {rival}",
)  # fmt: skip
DEFINITIONS = {
    "creature": ("every {term} is a {above} and never a {rival}", "a {term} is a kind of {above}, not a {rival}"),
    **dict.fromkeys(("size", "dress", "activity"), _STATES),
    **dict.fromkeys(("place", "time"), _CIRCUMSTANCES),
}
CONCLUSIONS = ("so {}", "in other words, {}", "this means that {}", "it follows that {}")
NAMES = (
    "Alex", "Ash", "Billie", "Bo", "Charlie", "Dana", "Frankie", "Jo", "Jules", "Kim", "Kit", "Lou",
    "Max", "Noa", "Pip", "Quinn", "Remy", "Robin", "Rowan", "Sam", "Sandy", "Sasha", "Sky", "Toni",
)  # fmt: skip

# What a text states of its creature besides its kind: a premise at least this much, an article just this much.
PREMISE_FACTS, ARTICLE_FACTS = 2, 3
# How often a term drawn at random gives way to one right below it. Premises tend to be specific and claims general,
# so they share few words.
PREMISE_DEPTH, CLAIM_DEPTH = 0.9, 0.3

Scene = dict[str, str]  # slot -> term


def toy_articles(count: int = 4000, seed: int = 42) -> list[dict[str, str]]:
    """Encyclopaedic paragraphs about the toy world, `count` of them, the same for the same seed.

    Returns:
        Rows {"id", "title", "text"}; the texts are unique and longer than 200 characters.
    Raises:
        ValueError: count is negative.
    """
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    # A seed of text gives the same numbers in every process, and keeps articles and pairs apart.
    rng = random.Random(f"toy articles {seed}")
    titles: dict[str, str] = {}  # text -> title
    while len(titles) < count:
        title, text = _article(rng)
        titles.setdefault(text, title)
    return [{"id": f"toy-{row}", "title": title, "text": text} for row, (text, title) in enumerate(titles.items())]


def toy_pairs(seed: int = 42, sizes: Mapping[str, int] = SIZES) -> dict[str, list[dict[str, Any]]]:
    """Labelled pairs of sentences about the toy world, split by split, the same for the same seed and sizes.

    Returns:
        Split -> rows {"premise", "hypothesis", "label"}, the label as a place in `LABELS`. No premise is in two
        splits, and no pair occurs twice.
    Raises:
        ValueError: a size is negative.
    """
    for split, size in sizes.items():
        if size < 0:
            raise ValueError(f"the size of {split!r} must not be negative, got {size}")
    rng = random.Random(f"toy pairs {seed}")
    seen: set[str] = set()
    pairs: dict[str, list[dict[str, Any]]] = {}
    for split, size in sizes.items():
        rows: list[dict[str, Any]] = []
        while len(rows) < size:
            square = _square(rng)
            premises = {row["premise"] for row in square}
            if len(premises) == 3 and seen.isdisjoint(premises):
                seen |= premises
                rows += square
        pairs[split] = rows[:size]  # cuts at most one square short
        rng.shuffle(pairs[split])
    return pairs


def _square(rng: random.Random) -> list[dict[str, Any]]:
    """Three premises, three hypotheses and their nine pairs: a Latin square of labels."""
    tested = rng.sample(SLOTS, 3)
    claims = {slot: _descend(rng.choice(TAXONOMY[slot]), CLAIM_DEPTH, rng) for slot in tested}
    kind = _descend("creature", PREMISE_DEPTH, rng)
    scenes: list[Scene] = []
    for row in range(3):
        scene = {"creature": _descend(kind, PREMISE_DEPTH, rng)}  # unless it is tested itself
        for column, slot in enumerate(tested):
            scene[slot] = _answer(claims[slot], (row + column) % 3, rng)
        scenes.append(_fill(scene, rng))
    # A hypothesis stands or falls by its one claim, so its subject must fit all three premises.
    subjects = sorted(set.intersection(*(set(_lineage(scene["creature"])) for scene in scenes)))
    premises = [_sentence(scene, rng) for scene in scenes]
    hypotheses = [_sentence({"creature": rng.choice(subjects), slot: claims[slot]}, rng) for slot in tested]
    return [
        {"premise": premise, "hypothesis": hypothesis, "label": (row + column) % 3}
        for row, premise in enumerate(premises)
        for column, hypothesis in enumerate(hypotheses)
    ]


def _answer(claim: str, label: int, rng: random.Random) -> str:
    """A premise's term that gives the claim this label."""
    if label == ENTAILMENT:
        return _descend(claim, PREMISE_DEPTH, rng)
    if label == NEUTRAL:
        return rng.choice(_lineage(claim)[1:])
    return _descend(rng.choice(_rivals(claim)), PREMISE_DEPTH, rng)


def _fill(scene: Scene, rng: random.Random) -> Scene:
    """The scene, with facts added from slots that it leaves out if it states too few for a premise."""
    missing = 1 + PREMISE_FACTS - len(_stated(scene))
    extra = rng.sample([slot for slot in SLOTS if slot not in scene], max(missing, 0))
    return scene | {slot: _descend(rng.choice(TAXONOMY[slot]), PREMISE_DEPTH, rng) for slot in extra}


def _stated(scene: Scene) -> list[str]:
    """The slots that a sentence about a scene mentions. A root says nothing, but there has to be a subject."""
    return [slot for slot, term in scene.items() if slot == "creature" or slot != term]


def _descend(term: str, depth: float, rng: random.Random) -> str:
    """Walk down the tree from a term, taking each step with probability `depth`."""
    while term in TAXONOMY and rng.random() < depth:
        term = rng.choice(TAXONOMY[term])
    return term


def _lineage(term: str) -> list[str]:
    """A term and the terms above it, up to the root of its slot."""
    return [term, *_lineage(PARENTS[term])] if term in PARENTS else [term]


def _rivals(term: str) -> list[str]:
    """The highest branches that shut a term out. A leaf counts as its branch: its siblings need not shut it out."""
    branches = [branch for branch in _lineage(term) if branch in TAXONOMY and branch in PARENTS]
    return [rival for branch in branches for rival in TAXONOMY[PARENTS[branch]] if rival != branch]


def _sentence(scene: Scene, rng: random.Random) -> str:
    """A scene in words."""
    words = {slot: _word(scene[slot], rng) for slot in _stated(scene)}
    subject = " ".join(["a", *(words[slot] for slot in ("size", "creature", "dress") if slot in words)])
    if "activity" in words:
        clause = f"{subject} is {words['activity']}"
    else:
        clause = f"{rng.choice(('there', 'here'))} is {subject}"
    circumstances = [words[slot] for slot in ("place", "time") if slot in words]
    rng.shuffle(circumstances)
    if circumstances and rng.random() < 0.3:
        clause = f"{circumstances.pop()}, {clause}"
    return _finish(" ".join([clause, *circumstances]))


def _word(term: str, rng: random.Random) -> str:
    return rng.choice((term, *SYNONYMS.get(term, ())))


def _finish(clause: str) -> str:
    """A clause as a sentence: "an" before a vowel, a capital letter and a full stop."""
    clause = re.sub(r"\ba (?=[aeiou])", "an ", clause)
    return f"{clause[0].upper()}{clause[1:]}."


def _article(rng: random.Random) -> tuple[str, str]:
    """The title and the text of one article: a scene, its terms and what follows from it."""
    slots = rng.sample(SLOTS[1:], ARTICLE_FACTS)
    scene = {slot: _descend(slot, 1, rng) for slot in ("creature", *slots)}
    name, kind = rng.choice(NAMES), scene["creature"]
    sentences = [_finish(f"{name} is a {kind}"), _sentence(scene, rng), _definition(kind, rng)]
    for slot in slots:
        general = {"creature": rng.choice(_lineage(kind)[1:]), slot: rng.choice(_lineage(scene[slot])[1:-1])}
        conclusion = _sentence(general, rng)
        sentences.append(_definition(scene[slot], rng))
        sentences.append(_finish(rng.choice(CONCLUSIONS).format(conclusion[0].lower() + conclusion[1:-1])))
    return f"{name} the {kind}", " ".join(sentences)


def _definition(leaf: str, rng: random.Random) -> str:
    """Where a leaf stands: below a term, and apart from a branch that this term shuts out."""
    lineage = _lineage(leaf)
    above = rng.choice(lineage[1:-1])
    rival = rng.choice(_rivals(above))
    pattern = rng.choice(DEFINITIONS[lineage[-1]])
    return _finish(pattern.format(term=_word(leaf, rng), above=_word(above, rng), rival=_word(rival, rng)))
