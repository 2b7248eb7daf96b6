"""Proves that the tokenizer is BERT's (the reference is transformers' own), and that nothing leaks into its files."""

import json
import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BertTokenizerFast

from minibert.cli import parse_options
from minibert.data.articles import Articles
from minibert.errors import UserError
from minibert.files import write_folder
from minibert.hub import load_tokenizer
from minibert.options import MLMOptions
from minibert.pretraining import make_tokenizer
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.conftest import TEXTS

ODD = ["", "   \t\n ", "a" * 300, "control \x00\x07\u200b characters \ufeff", "[MASK] in the text, [CLS] too"]
ODD += ["Café naïve Übermut", "東京 is in 日本", "emoji 🙂👩‍👩‍👧 here", "right to left \u202e עברית العربية"]
ODD += ["cat,dog;mat...!?", "don't stop-here", "ﬁ ligature ½ ① Ⅷ"]


def reference(tokenizer: WordPieceTokenizer) -> BertTokenizerFast:
    return BertTokenizerFast(vocab=tokenizer.backend.get_vocab())


def test_ids_are_the_references(tokenizer: WordPieceTokenizer) -> None:
    random.seed(0)
    noise = ["".join(chr(random.randrange(1, 0x3000)) for _ in range(50)) for _ in range(300)]
    texts = [*ODD, *TEXTS, *noise]
    expected = reference(tokenizer)(texts, truncation=True, max_length=40)["input_ids"]
    assert tokenizer.encode(texts, 40) == expected


def test_cut_to_the_maximum_with_both_ends(tokenizer: WordPieceTokenizer) -> None:
    cat = tokenizer.backend.token_to_id("cat")
    assert tokenizer.encode(["cat " * 10, "cat", ""], 5) == [
        [tokenizer.cls_id, cat, cat, cat, tokenizer.sep_id],
        [tokenizer.cls_id, cat, tokenizer.sep_id],
        [tokenizer.cls_id, tokenizer.sep_id],
    ]
    with pytest.raises(ValueError, match="need 3"):
        tokenizer.encode(["cat"], 2)


def test_longest_piece_first(tokenizer: WordPieceTokenizer) -> None:
    assert tokenizer.tokens(tokenizer.encode(["Sleeping cats"], 9)[0]) == [
        "[CLS]", "sleep", "##ing", "cat", "##s", "[SEP]",
    ]  # fmt: skip


def test_a_saved_folder_is_the_references_and_ours(tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    tokenizer.encode(TEXTS, 6)  # a cut must not leak into the files
    tokenizer.save(tmp_path, 19)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["truncation"] is None
    assert saved["padding"] is None
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 19
    expected = tokenizer.encode([*ODD, *TEXTS], 500)
    assert theirs([*ODD, *TEXTS])["input_ids"] == expected
    for name in ("", "tokenizer.json", "vocab.txt"):
        assert load_tokenizer(str(tmp_path / name)).encode([*ODD, *TEXTS], 500) == expected


def test_settings_of_a_foreign_file_do_not_leak_in(tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    expected = tokenizer.encode(["the cat sat on the mat"], 50)
    tokenizer.backend.enable_truncation(4)
    tokenizer.backend.enable_padding(length=30)
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.encode(["the cat sat on the mat"], 50) == expected
    assert len(expected[0]) == 8


def test_capitals_in_the_vocabulary_mean_cased() -> None:
    tokenizer = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, "Cat", "cat", "café"])
    assert tokenizer.tokens(tokenizer.encode(["Cat cat café"], 9)[0])[1:-1] == ["Cat", "cat", "café"]


@pytest.mark.parametrize(("lowercase", "pieces"), [(False, ["Cat", "[UNK]"]), (True, ["cat", "cafe"])])
def test_a_setting_beside_the_vocabulary_says_whether_it_is_cased(
    tmp_path: Path, lowercase: bool, pieces: list[str]
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "Cat", "cat", "cafe"]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.tokens(tokenizer.encode(["Cat café"], 9)[0])[1:-1] == pieces


def test_nothing_is_cut_without_a_length(tokenizer: WordPieceTokenizer) -> None:
    assert len(tokenizer.encode(["cat " * 900], None)[0]) == 902


def test_ids_become_text_again(tokenizer: WordPieceTokenizer) -> None:
    ids = tokenizer.encode(["The CATS sat, sleeping."], 20)[0]
    assert tokenizer.decode(ids, skip_special=True) == "the cats sat, sleeping."
    assert tokenizer.decode(ids) == "[CLS] the cats sat, sleeping. [SEP]"
    assert tokenizer.decode([4]) == "[MASK]"


def test_training_is_repeatable_and_covers_its_text() -> None:
    first, *others = (WordPieceTokenizer.train(TEXTS, 60) for _ in range(5))
    assert all(first.backend.get_vocab() == other.backend.get_vocab() for other in others)
    assert first.tokens(range(5)) == list(SPECIAL_TOKENS)
    assert first.vocab_size == 60
    assert {"the", "##s", "s"} <= set(first.backend.get_vocab())
    assert first.unk_id not in {index for ids in first.encode(TEXTS, 99) for index in ids}


def test_special_marks_the_five_and_no_other(tokenizer: WordPieceTokenizer) -> None:
    assert tokenizer.special().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_lone_surrogates_are_dropped_and_pairs_kept(tokenizer: WordPieceTokenizer) -> None:
    assert tokenizer.encode(["cat \ud800 dog"], 9) == tokenizer.encode(["cat dog"], 9)
    assert tokenizer.encode(["\ud83d\ude42"], 9) == tokenizer.encode(["🙂"], 9)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "cat\ndog\n", r"lacks \[CLS\]"),
        ("vocab.txt", "\n".join(token for token in SPECIAL_TOKENS if token != "[SEP]"), r"lacks \[SEP\]"),
        ("vocab.txt", "\n".join([*SPECIAL_TOKENS, "cat", "cat"]), "'cat' is token 6 and token 7"),
        ("tokenizer.json", "{}", "not a WordPiece vocabulary"),
        ("tokenizer.json", "{", "not valid JSON"),
        ("vocab.txt", b"\xff\xfe\x00", "not a WordPiece vocabulary"),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load_tokenizer(str(tmp_path / name))


def test_a_byte_pair_tokenizer_is_refused(tmp_path: Path) -> None:
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(SPECIAL_TOKENS)}, []))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="BPE, not a WordPiece"):
        load_tokenizer(str(tmp_path))


def test_a_folders_checksums_hold_for_what_is_read_of_it(tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    """Other files of the folder may be damaged: a vocabulary is as good without the weights beside it."""

    def write(staging: Path) -> None:
        tokenizer.save(staging, 19)
        (staging / "model.safetensors").write_text("weights")

    write_folder(tmp_path, write)
    (tmp_path / "model.safetensors").write_text("others")
    assert load_tokenizer(str(tmp_path)).fingerprint() == tokenizer.fingerprint()
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        right = (tmp_path / name).read_text()
        (tmp_path / name).write_text(right.replace("a", "b", 1))
        with pytest.raises(UserError, match=rf"{name} is damaged: it does not match SHA256SUMS"):
            load_tokenizer(str(tmp_path))
        (tmp_path / name).unlink()
        with pytest.raises(UserError, match=rf"SHA256SUMS can't be checked \(.*{name}: No such file"):
            load_tokenizer(str(tmp_path))
        (tmp_path / name).write_text(right)


def test_ids_beyond_the_vocabulary_are_refused(tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    """A model has no row for them."""
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["vocab"]["cat"] = 61
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"the vocabulary has 61 tokens, but their ids are not 0, 1, 2"):
        load_tokenizer(str(tmp_path))


def test_no_file_and_no_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--vocab train"):
        load_tokenizer("google-bert/bert-base-uncased")
    with pytest.raises(UserError, match=r"neither a tokenizer\.json nor a vocab\.txt"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "a . b ; " * 60,  # more pieces than a first portion is expected to hold
        "animal sleeping " * 30,  # fewer: it takes several portions
        "sleeping" * 40 + " the cat",  # one word longer than a portion
        "   the   cat " + " " * 900 + "sat\non\tthe mat",
        "the " * 3 + "animal " * 20 + "a " * 50 + "animals " * 20,
    ],
)
def test_the_beginning_of_a_text_is_that_of_the_whole(tokenizer: WordPieceTokenizer, text: str) -> None:
    (whole,) = tokenizer.encode([text], None)
    for length in range(3, 80):
        cut = whole if len(whole) <= length else [*whole[: length - 1], tokenizer.sep_id]
        assert tokenizer.encode(["a dog", text], length)[1] == cut


CUT = ["new york", "New  York", "the cat", "a", ".", "York", "new", "<x>", "[MASK]", "xyz" * 20]
CUT += [" ", "  ", "\n", "\u00a0"]
BERTS = pre_tokenizers.BertPreTokenizer()


@pytest.mark.parametrize(
    ("pre_tokenizer", "added", "in_portions"),
    [
        (BERTS, [], True),
        (BERTS, [AddedToken("<x>", lstrip=True, rstrip=True)], True),
        (BERTS, [AddedToken("<x>", single_word=True)], True),
        (BERTS, [AddedToken("New York")], False),
        (BERTS, [AddedToken("New  York", normalized=False)], False),
        (BERTS, [AddedToken("york\u00a0the")], False),
        (BERTS, [AddedToken(" new")], False),
        (pre_tokenizers.WhitespaceSplit(), [], True),
        (pre_tokenizers.Punctuation(), [], False),
        (None, [], False),
        (None, [AddedToken("New York")], False),
    ],
)
def test_no_cut_of_a_long_text_changes_ids(
    tokenizer: WordPieceTokenizer,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    added: list[AddedToken],
    in_portions: bool,
) -> None:
    """The library's own truncation of the whole text is what is right."""
    backend = tokenizer.backend
    backend.pre_tokenizer = pre_tokenizer
    backend.add_tokens(added)
    ours, chance = WordPieceTokenizer(Tokenizer.from_str(backend.to_str())), random.Random(0)
    assert ours.splits_at_spaces is in_portions
    texts = ["".join(chance.choices([*CUT, " "], k=chance.randrange(1, 120))) for _ in range(120)]
    for length in (3, 5, 9, 30):
        backend.enable_truncation(length)
        whole = [encoding.ids for encoding in backend.encode_batch(texts)]
        assert ours.encode(texts, length) == whole


SCRIPTS = {
    "Chinese": "".join(chr(code) for code in range(0x4E00, 0x4E00 + 1_500)),
    "Hindi": "यह एक छोटी सी कहानी है। लड़का और लड़की बाज़ार में मिलते हैं। हिन्दी में मात्राएँ स्वर हैं।",
    "Thai": "ภาษาไทยเป็นภาษา ที่มีสระ และวรรณยุกต์ น้ำ ก้าว เด็ก ผู้หญิง",
    "Korean": "한국어는 한글로 쓴다. 고양이와 강아지가 함께 논다.",
    "Arabic": "اللُّغَةُ العَرَبِيَّةُ جَمِيلَةٌ. القطة تنام على السجادة.",
    "Hebrew": "שָׁלוֹם עוֹלָם. החתול ישן.",
    "Greek": "Ο γάτος κοιμάται στο χαλί. Ψυχή και Σώμα.",  # noqa: RUF001
    "Vietnamese": "Tiếng Việt có dấu. Con mèo ngủ trên thảm.",
    "emoji": "🙂 👩 🎉🎉 the cat 👍 likes 🐟",
    "several": "the cat मात्रा 中文字 고양이 القطة 🙂 γάτος",
}


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_learned_vocabulary_spells_its_own_text_in_any_script(tmp_path: Path, script: str, lowercase: bool) -> None:
    """And transformers reads from the saved folder what becomes of case and accents."""
    texts = [SCRIPTS[script]] * 3
    tokenizer = WordPieceTokenizer.train(texts, 2_000, lowercase)
    ids = tokenizer.encode(texts, None)
    assert not any(tokenizer.unk_id in row for row in ids)
    tokenizer.save(tmp_path, 512)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == ids
    assert load_tokenizer(tmp_path).encode(texts, None) == ids
    text = unicodedata.normalize("NFC", tokenizer.decode(ids[0], skip_special=True)).replace(" ", "")
    if not lowercase:  # nothing is lost but spaces
        assert text == unicodedata.normalize("NFC", SCRIPTS[script]).replace(" ", "")


def test_a_learned_vocabulary_has_as_many_pieces_as_were_asked_for() -> None:
    """A thousand syllables in words of two: 5 special tokens, the syllables twice, words."""
    chance = random.Random(0)
    syllables = [chr(0xAC00 + 28 * i) for i in range(300)]
    words = ["".join(chance.choices(syllables, k=2)) for _ in range(900)]
    text = " ".join(word for word in words for _ in range(chance.randrange(1, 9)))
    assert WordPieceTokenizer.train([text], 1_000, lowercase=False).vocab_size == 1_000


def test_the_rarest_characters_of_a_large_text_are_left_out_and_no_others() -> None:
    """1,500 of them a hundred times each, and 10 once: these are less than one in ten thousand."""
    common, rare = ([chr(0x4E00 + i) for i in range(*each)] for each in ((0, 1_500), (1_500, 1_510)))
    tokenizer = WordPieceTokenizer.train(["".join(common)] * 100 + ["".join(rare)], 3_000)
    assert set(tokenizer.backend.get_vocab()) == {*SPECIAL_TOKENS, *common}  # standing by themselves, in no word
    assert WordPieceTokenizer.train(["".join(common)] * 50 + ["".join(rare)], 3_000).vocab_size == 5 + 1_510


def test_case_and_accents_are_kept_if_asked_for() -> None:
    texts = ["Café au Lait CAFÉ é É"] * 3
    for lowercase, expected in ((True, ["cafe", "au"]), (False, ["Café", "au"])):
        tokenizer = WordPieceTokenizer.train(texts, 200, lowercase)
        assert tokenizer.lowercase is lowercase
        assert tokenizer.tokens(tokenizer.encode(["Café au"], 9)[0])[1:-1] == expected


def test_case_can_be_kept_by_a_flag_where_a_vocabulary_is_learned(
    tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    """A vocabulary that is there itself decides about case."""
    tokenizer.save(tmp_path, 19)
    file, cache = tmp_path / "text.txt", str(tmp_path / "cache")
    file.write_text("\n\n".join(f"Der Hund {number} schläft." for number in range(9)))
    options = parse_options(MLMOptions, ["--vocab", "train", "--vocab-size", "99", "--no-lowercase"], "")
    with Articles(str(file), max_articles=0, held_out=1, min_characters=0, seed=1, cache=cache) as articles:
        learned = make_tokenizer(options, articles)
        assert {"Hund", "schläft"} & set(learned.backend.get_vocab())
        assert not learned.lowercase
        assert make_tokenizer(replace(options, lowercase=True), articles).lowercase
        with pytest.raises(UserError, match=r"--no-lowercase is for --vocab train: .*vocab\.txt itself decides"):
            make_tokenizer(replace(options, vocab=str(tmp_path / "vocab.txt")), articles)


def test_what_looks_like_a_list_of_texts_is_refused(tokenizer: WordPieceTokenizer) -> None:
    with pytest.raises(TypeError, match="a list of texts"):
        tokenizer.encode("the cat", 10)
    with pytest.raises(TypeError, match="read twice"):
        WordPieceTokenizer.train((text for text in TEXTS), 600)
