"""Real text that every Python brings along, and lines in which tokenizers like to differ."""

from __future__ import annotations

import re
from pydoc_data.topics import topics

# The language reference, as `help()` shows it: prose, grammar and code, in lines of up to about 80 characters.
LINES = [line for topic in topics.values() for line in topic.splitlines() if line.strip()]

PARAGRAPHS = [
    " ".join(paragraph.split())
    for topic in topics.values()
    for paragraph in re.split(r"\n\s*\n", topic)
    if paragraph.strip()
]

SENTENCES = [sentence for paragraph in PARAGRAPHS for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)]

# Pieces of the language reference of more than 200 characters, as the notebook wants its articles.
ARTICLES = [article for article in ("\n".join(PARAGRAPHS[i : i + 4]) for i in range(0, len(PARAGRAPHS), 2))
            if len(article) > 200]  # fmt: skip

WORLD = [
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren; Straße, Fuß, GROẞ.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. L'œuvre, ça, où?",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos. ¿Mañana? ¡Señor!",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İSTANBUL'da ılık ışık.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności. Zażółć gęślą jaźń.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "Все люди рождаются свободными и равными в своём достоинстве и правах. Ёлка, йод.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια. ΣΊΣΥΦΟΣ σίσυφος",
    "יולדים כל בני האדם בני חורין ושווים בערכם ובזכויותיהם. שָׁלוֹם",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. السَّلَامُ",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。𠀀𪜀",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。ガギグ",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 한국어",
    "e\u0301 vs é, n\u0303 vs ñ, A\u030angstro\u0308m, ﬁ ﬂ ligatures, Ⅷ, ½, ²³, ℃, ﷺ",
    "emoji 🙂👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇫🇷 and ☺️ ❤ ✈, math ∀x∈ℝ: x²≥0 ⇒ √x, arrows →⇔, money €£¥₹₿",
    "fullwidth ＡＢＣ１２３！, circled ①②, smallcaps ᴀʙᴄ, 𝔉𝔯𝔞𝔨𝔱𝔲𝔯, 𝟘𝟙𝟚",
    "control \x00\x01\x07\x08\x0b\x0c\x1b[31m\x7f\x80\x85\x9f end\ttab\rcarriage\nnewline\u2028line\u2029paragraph",
    "invisible a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg\u034fh, spaces\u00a0\u1680\u2000\u2009\u202f\u205f\u3000end",
    "direction \u202eevil\u202c \u200fright\u200e \u2066isolate\u2069, replacement \ufffd, private \ue000, \U0010ffff",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "é" * 100 + " " + "日" * 120 + " " + "x-" * 70,
    "[CLS] [SEP] [MASK] [PAD] [UNK] [MASK][MASK] [mask] [ MASK ] ##ing ## #a [unused1]",
    "don't can't it's U.S.A. e-mail@example.com http://x.org/a?b=c&d=%20 C++ #tag @me 1,000.50 3.14e-10 $5 `~^|\\",
    "", " ", "\n", "\u3000", "\x00", "\u200b", "…", "--", "''", "🙂",
]  # fmt: skip

# Every code point there is but the surrogates, 64 a line, each between two letters.
UNICODE = [
    "".join(f"a{chr(point)}b " for point in range(start, start + 64))
    for start in range(0, 0x110000, 64)
    if not 0xD800 <= start < 0xE000
]
