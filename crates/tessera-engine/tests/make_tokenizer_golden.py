"""Makes the golden token ids in tests/data: what the reference tokenizers say.

    pip install sentencepiece tokenizers
    python3 make_tokenizer_golden.py PATH/TO/chinese-llama-2/tokenizer.model

Without a path only the part that needs no third-party model is made.
"""

import json
import pathlib
import random
import sys

import tokenizers

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data"

STRINGS = [
    "", " ", "  ", "\n", "\t", " \n ", "a", " a", "a ", "  a  b  ", "Hello", "Hello, world!", "Hello  world",
    "hello\nworld", "hello\r\nworld", "\n\n\n", "\t\tx", "The quick brown fox jumps over the lazy dog.",
    "▁", "▁▁", "a▁b", "▁a", " ▁ a", "<0x41>", "<0xE4>", "⁇", " ⁇ ", "a ⁇ b",
    "你好", "你好，世界！", "中文和English混合 text 测试", "龘靐齉爩鱻麤", "𠮷野家", "㐀㐁", "ﾊﾝｶｸ", "ＦＵＬＬ ｗｉｄｔｈ　１２３",
    "日本語のテキスト", "한국어 텍스트", "עברית", "العربية", "ไทย", "हिन्दी", "Ελληνικά", "Русский текст",
    "é", "e\u0301", "ﬁ", "①②③", "½", "™", "\u00a0", "a\u00a0b", "\u3000", "\u200b", "a\u200db", "\ufeff", "\u2028",
    "🙂", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "👍🏽", "a🙂b", "🙂🙂🙂🙂", "\U0001f9ff\U0001faf6",
    "\x00", "a\x00b", "\x01\x02\x7f", "\x1b[31m", "\u0378", "\U0010ffff", "\ud7ff", "\ufffd",
    "0", "12345", "3.14159", "1,000,000", "1e-10", "0x1F", "2024-01-31T12:00:00Z",
    "don't", "it's", "I'll we've they're", "rock'n'roll", "“quoted”", "a—b", "a…b",
    "def f(x):\n    return x ** 2\n", "if (a && b) { c(); }", "SELECT * FROM t WHERE a = 'b';", "</div>", "<br/>",
    "https://example.com/?q=a+b&c=%20#x", "user@example.com", "C:\\path\\file", "$x$ \\frac{a}{b}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababab", "    indented", "trailing   ", " leading",
    "UPPER lower MiXeD", "camelCaseIdentifier", "snake_case_name", "kebab-case-name", "!!!???...", "((([[[{{{",
    "one two  three   four    five     six", "x" * 100, "字" * 50, "é" * 40, " " * 40, "\n" * 20,
    "Donaudampfschifffahrtsgesellschaft", "antidisestablishmentarianism", "naïve café résumé", "Ünïcödé",
    "<pad>", "[INST]", "[/INST]", "<<SYS>>", "a<b>c", "<|im_start|>", "#", "##", "# heading\n\n- item\n",
]


def random_strings():
    rng = random.Random(20240131)
    alphabet = "ab  \n\t.,'-_▁é中文🙂0"
    wide = [chr(c) for c in range(0x20, 0x3000, 97)] + ["🙂", "𠮷", "\x00"]
    for _ in range(40):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 30)))
    for _ in range(20):
        yield "".join(rng.choice(wide) for _ in range(rng.randrange(1, 20)))


def write(name, value):
    text = json.dumps(value, ensure_ascii=True, indent=0).replace(",\n", ",") + "\n"
    (DATA / name).write_text(text)


def main():
    strings = STRINGS + list(random_strings())
    strings = [s for s in strings if "\ud800" not in s]

    tok = tokenizers.Tokenizer.from_file(str(DATA / "tiny-tokenizer.json"))
    special = strings + ["<s>", "a</s>b", "<s>[INST] x [/INST]</s>", "<unk>", "<s><s>", "< s>"]
    write(
        "tiny-tokenizer.golden.json",
        [[s, tok.encode(s, add_special_tokens=False).ids, tok.decode(tok.encode(s).ids)] for s in special],
    )

    if len(sys.argv) > 1:
        import sentencepiece

        sp = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
        write("chinese-llama-2.golden.json", [[s, sp.encode(s), sp.decode(sp.encode(s))] for s in strings])


if __name__ == "__main__":
    main()
