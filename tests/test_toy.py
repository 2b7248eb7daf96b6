"""Proves that the toy data are honest, learnable in principle and the same in every process.

The labels are checked by reading the sentences back: `LEXICON` says, in a table of the tests' own,
where each phrase stands, and `infer` compares the places. The controls are classifiers that lack
what the task is about, and so must stay near chance. The rest is the contract: sizes, balance,
splits, seeds, and articles that know every word of the pairs and tell no falsehood.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from minibert.toy import SIZES, toy_articles, toy_pairs

Row = dict[str, Any]
Pairs = dict[str, list[Row]]

# Path of a fact -> the phrases that state it; then those of its leaves, PATH/1, PATH/2 and so on.
# Written apart from the generator's own tables.
BRANCHES = {
    "kind": "creature",
    "kind/animal": "animal, beast",
    "kind/animal/dog": "dog, hound; poodle; beagle; terrier; spaniel",
    "kind/animal/horse": "horse; mare; stallion; filly; mustang",
    "kind/animal/bird": "bird; duck; goose; swan; gull",
    "kind/person": "person, human",
    "kind/person/child": "child, youngster; boy; girl; pupil; scout",
    "kind/person/adult": "adult, grownup; man; woman; farmer; nurse",
    "size/small": "small, little; tiny, teeny; miniature",
    "size/big": "big, large; huge, enormous; giant, gigantic",
    "colour/bright": "in bright clothes, in bright colours; in red; in yellow; in orange; in pink",
    "colour/dark": "in dark clothes, in dark colours; in black; in brown; in navy; in maroon",
    "doing/rest": "resting, at rest, taking a rest; sleeping, asleep; dozing; napping; lying still",
    "doing/move": "active, on the move, moving about; walking, strolling; running, racing; jumping, leaping; dancing",
    "place/out": "outdoors, outside, in the open air; "
    "in the park; in the garden; in the forest, in the woods; in the street, on the road; on the beach",
    "place/in": "indoors, inside, under a roof; "
    "in the kitchen; in the library; in the hall; in the attic; in the cellar",
    "time/day": "by day, in the daytime, in daylight; "
    "in the morning; at breakfast; at noon, at midday; in the afternoon",
    "time/night": "at night, by night, during the night; at midnight; at bedtime; after sunset; before sunrise",
}
LEXICON = {
    path + f"/{leaf}" * (leaf > 0): phrases
    for path, branch in BRANCHES.items()
    for leaf, phrases in enumerate(branch.split("; "))
}
PATHS = {phrase: path for path, phrases in LEXICON.items() for phrase in phrases.split(", ")}
PHRASE = re.compile(r"\b(" + "|".join(sorted(PATHS, key=len, reverse=True)) + r")\b")


def words(sentence: str) -> list[str]:
    return re.findall(r"[a-z]+", sentence.lower())


FUNCTION_WORDS = set(words("a an the is there here in on at by during before after under"))
CHANCE = 1 / 3
DIGEST = "cabb64fa49c9cac8fc3f6e7258c575a94c04fb823cd99f25dc880a163adc3b6d"


def read(sentence: str) -> dict[str, str]:
    """Parse a sentence into {slot: path}, and leave nothing of it unread."""
    text = sentence.lower()
    facts: dict[str, str] = {}
    for phrase in PHRASE.findall(text):
        slot = PATHS[phrase].split("/")[0]
        assert slot not in facts, f"two facts on {slot}: {sentence}"
        facts[slot] = PATHS[phrase] + "/"
    assert set(words(PHRASE.sub("", text))) <= {"a", "an", "is", "there", "here"}, sentence
    return facts


def infer(premise: str, hypothesis: str) -> int:
    """Label a pair by comparing what its sentences say."""
    stated, claimed = read(premise), read(hypothesis)
    verdicts = set()
    for slot, claim in claimed.items():
        fact = stated.get(slot, slot + "/")
        if fact.startswith(claim):
            verdicts.add(0)
        elif claim.startswith(fact):
            verdicts.add(1)
        else:
            # The leaves of one branch may go together, which would leave the label open to doubt.
            assert not claim[-2].isdigit() or fact[:-2] != claim[:-2], (premise, hypothesis)
            verdicts.add(2)
    return max(verdicts)


def accuracy(features: Callable[[Row], Any], splits: Pairs, vectors: Any = None, **settings: Any) -> float:
    """Of a logistic regression over vectors, by default counts of words and pairs of words, on the test split."""
    vectors = vectors or CountVectorizer(ngram_range=(1, 2))
    model = make_pipeline(vectors, LogisticRegression(**{"C": 0.1, "max_iter": 500, **settings}))
    train, test = (
        ([features(row) for row in splits[name]], [row["label"] for row in splits[name]]) for name in ("train", "test")
    )
    return float(model.fit(*train).score(*test))


def overlap(row: Row) -> list[float]:
    """What counting words can see of a pair."""
    premise, hypothesis = set(words(row["premise"])), set(words(row["hypothesis"]))
    stated, claimed = premise - FUNCTION_WORDS, hypothesis - FUNCTION_WORDS
    shared = len(stated & claimed)
    lengths = [len(words(row[side])) for side in ("premise", "hypothesis")]
    return [
        shared, shared / len(claimed), shared / len(stated | claimed), len(claimed - stated),
        len(premise & hypothesis) / len(premise | hypothesis), len(hypothesis - premise),
        *lengths, lengths[0] - lengths[1],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return toy_pairs()


@pytest.fixture(scope="module")
def articles() -> list[Row]:
    return toy_articles()


@pytest.fixture(scope="module")
def rows(pairs: Pairs) -> list[Row]:
    return [row for split in pairs.values() for row in split]


# --- labels


def test_labels_follow_from_what_the_sentences_say(rows: list[Row]) -> None:
    wrong = [row for row in rows if infer(row["premise"], row["hypothesis"]) != row["label"]]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_follow_under_any_seed(seed: int) -> None:
    for row in toy_pairs(seed, {"train": 900})["train"]:
        assert infer(row["premise"], row["hypothesis"]) == row["label"], row


@pytest.mark.parametrize(
    ("premise", "hypothesis", "label"),
    [
        ("A tiny poodle is napping in the park.", "An animal is outdoors.", 0),
        ("A tiny poodle is napping in the park.", "A dog is resting.", 0),
        ("A tiny poodle is napping in the park.", "There is a dog in red.", 1),
        ("An animal is napping in the park.", "There is a dog.", 1),
        ("A dog is resting.", "A dog is asleep.", 1),
        ("A tiny poodle is napping in the park.", "There is a bird.", 2),
        ("A tiny poodle is napping in the park.", "A poodle is indoors.", 2),
    ],
)
def test_the_inference_of_these_tests_reads_plain_examples_right(premise: str, hypothesis: str, label: int) -> None:
    assert infer(premise, hypothesis) == label


def test_every_slot_is_tested_under_every_label(rows: list[Row]) -> None:
    seen = Counter((slot, row["label"]) for row in rows for slot in read(row["hypothesis"]) if slot != "kind")
    assert len(seen) == 5 * 3
    kinds = Counter(row["label"] for row in rows if set(read(row["hypothesis"])) == {"kind"})
    assert set(kinds) == {0, 1, 2}
    assert min(seen.values()) > 500
    assert min(kinds.values()) > 500


# --- controls


@pytest.mark.parametrize("side", ["premise", "hypothesis"])
def test_one_side_alone_is_worth_no_more_than_chance(pairs: Pairs, side: str) -> None:
    assert accuracy(lambda row: row[side], pairs) < CHANCE + 0.02


@pytest.mark.parametrize("side", ["premise", "hypothesis"])
def test_no_sentence_favours_a_label(pairs: Pairs, side: str) -> None:
    for split in pairs.values():
        labels: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for row in split:
            labels[row[side]][row["label"]] += 1
        uneven = [text for text, count in labels.items() if len({count[i] for i in range(3)}) > 1]
        # Only the square that the split's size cuts short may be uneven.
        assert len(uneven) <= 3, uneven[:5]


def test_counting_shared_words_does_not_solve_the_task(pairs: Pairs) -> None:
    assert accuracy(overlap, pairs, StandardScaler(), C=1.0) < 0.55


def test_a_linear_bag_of_both_sentences_does_not_solve_the_task(pairs: Pairs) -> None:
    def both(row: Row) -> str:
        return " ".join(f"{side[0]}{word}" for side in ("premise", "hypothesis") for word in words(row[side]))

    assert accuracy(both, pairs) < 0.45


# --- the contract of the pairs


def test_sizes_labels_and_keys(pairs: Pairs) -> None:
    assert {split: len(rows) for split, rows in pairs.items()} == dict(SIZES)
    assert dict(SIZES) == {"train": 12000, "validation": 1000, "test": 2000}
    for split in pairs.values():
        assert all(set(row) == {"premise", "hypothesis", "label"} for row in split)
        counts = Counter(row["label"] for row in split)
        assert set(counts) == {0, 1, 2}
        assert max(counts.values()) - min(counts.values()) <= 3


def test_no_premise_stands_in_two_splits(pairs: Pairs) -> None:
    premises = [{row["premise"] for row in split} for split in pairs.values()]
    assert len(set.union(*premises)) == sum(map(len, premises))


def test_no_pair_stands_twice(rows: list[Row]) -> None:
    assert len({(row["premise"], row["hypothesis"]) for row in rows}) == len(rows)


def test_labels_come_in_no_order(pairs: Pairs) -> None:
    labels = [row["label"] for row in pairs["train"]]
    equal = sum(left == right for left, right in pairwise(labels))
    assert equal / len(labels) == pytest.approx(CHANCE, abs=0.03)


def test_sizes_are_free() -> None:
    sizes = {"a": 10, "b": 0, "c": 1}
    assert {split: len(rows) for split, rows in toy_pairs(sizes=sizes).items()} == sizes


# --- language


def test_sentences_are_short_and_well_formed(rows: list[Row]) -> None:
    for sentence in {row[side] for row in rows for side in ("premise", "hypothesis")}:
        assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+|, [a-z]+)* [a-z]+\.", sentence), sentence
        assert len(words(sentence)) <= 14, sentence


def test_articles_agree_with_their_nouns_and_no_word_is_doubled(rows: list[Row], articles: list[Row]) -> None:
    for text in [row.get(name, "") for row in (*rows, *articles) for name in ("premise", "hypothesis", "text")]:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\b(\w+) \1\b", text.lower()), text


# --- articles


def test_articles_are_long_and_unique(articles: list[Row]) -> None:
    assert len(articles) == 4000
    assert all(set(row) == {"id", "title", "text"} for row in articles)
    assert all(row["title"] for row in articles)
    assert min(len(row["text"]) for row in articles) > 200
    assert len({row["text"] for row in articles}) == len({row["id"] for row in articles}) == 4000


def test_articles_know_every_word_of_the_pairs(rows: list[Row], articles: list[Row]) -> None:
    known = Counter(word for row in articles for word in words(row["text"]))
    asked = {word for row in rows for word in words(f"{row['premise']} {row['hypothesis']}")}
    assert min(known[word] for word in asked) >= 20


def test_articles_tell_what_kind_of_thing_each_leaf_is(articles: list[Row]) -> None:
    text = " ".join(row["text"] for row in articles).lower()
    told = set(re.findall(r"every (\w+) is an? (\w+) and", text))
    for path, phrases in LEXICON.items():
        if re.fullmatch(r"kind/.*\d", path):
            above = LEXICON[path[:-2]].split(", ")[0]
            assert (phrases, above) in told


def test_articles_draw_conclusions_that_follow(articles: list[Row]) -> None:
    opening = re.compile(r"(So|In other words,|This means that|It follows that) ")
    for row in articles:
        _, scene, *rest = re.findall(r"[A-Z][^.]*\.", row["text"])
        conclusions = [opening.sub("", sentence) for sentence in rest if opening.match(sentence)]
        assert [infer(scene, sentence) for sentence in conclusions] == [0, 0, 0], row


def test_articles_define_terms_truly(articles: list[Row]) -> None:
    """Each definition puts a term below another and apart from a rival of it."""
    pattern = re.compile(
        r"(?:every|whoever is seen|whoever is|what happens|to be|a|an) (?P<term>[a-z ]+?)"
        r" (?:is a kind of|is an?|is seen|is to be|is|happens) (?P<above>[a-z ]+?)"
        r"(?: and never|, not)(?: an?)? (?P<rival>[a-z ]+)\."
    )
    found = 0
    for row in articles:
        for sentence in re.findall(r"[A-Z][^.]*\.", row["text"]):
            if "never" not in sentence and ", not" not in sentence:
                continue
            match = pattern.fullmatch(sentence.lower())
            assert match, sentence
            term, above, rival = (PATHS[phrase] for phrase in match.groups())
            assert term.startswith(above + "/"), sentence
            assert not term.startswith(rival), sentence
            assert rival.count("/") <= above.count("/"), sentence
            found += 1
    assert found == 4 * len(articles)


# --- seeds and arguments


def test_the_seed_decides() -> None:
    """And it is 42 unless it is said."""
    sizes = {"train": 90}
    assert toy_pairs(seed=42, sizes=sizes) == toy_pairs(sizes=sizes)
    assert toy_articles(20, seed=42) == toy_articles(20)
    assert toy_pairs(seed=1, sizes=sizes) != toy_pairs(seed=2, sizes=sizes)
    assert toy_articles(20, seed=1) != toy_articles(20, seed=2)


def test_fewer_articles_are_the_first_of_more(articles: list[Row]) -> None:
    assert toy_articles(50) == articles[:50]
    assert toy_articles(0) == []


def test_every_process_makes_the_same_data(pairs: Pairs, articles: list[Row]) -> None:
    """And the same as ever: README's and the tour's figures are of these very texts."""
    script = (
        "import hashlib, json; from minibert.toy import toy_articles, toy_pairs;"
        "data = json.dumps([toy_pairs(), toy_articles()]).encode();"
        "print(hashlib.sha256(data).hexdigest())"
    )
    digests = {DIGEST, hashlib.sha256(json.dumps([pairs, articles]).encode()).hexdigest()}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        digests.add(subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).strip())
    assert len(digests) == 1


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        toy_articles(-1)
    with pytest.raises(ValueError, match="train"):
        toy_pairs(sizes={"train": -1})


def test_the_default_sizes_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        SIZES["train"] = 1  # type: ignore[index]
