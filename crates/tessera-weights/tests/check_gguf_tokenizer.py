#!/usr/bin/env python3
"""Compares a rebuilt tokenizer with independent ones on awkward strings.

    pip install gguf regex tokenizers sentencepiece
    python check_gguf_tokenizer.py MODEL.gguf FOLDER             # byte-level BPE with `pre` smollm
    python check_gguf_tokenizer.py TOKENIZER.model FOLDER        # SentencePiece

FOLDER holds the rebuilt tokenizer.json or tokenizer.model. For the first kind the judge is a small
BPE written here the way llama.cpp does it: its two patterns in turn, then merges by rank.
"""
import os
import sys

STRINGS = [
    '', 'a', ' ', '  ', '   ', '\n', '\n\n', '\t', 'hello', ' hello', 'hello ', '  hello', 'hello world',
    'Hello, World!', 'HELLO', "don't can't I'll we've you're he'd I'M", '123', '1234567890', '3.14159',
    '1,000,000', 'v1.2.3', '2023-12-31', '12abc34', '\u2460\u2461\u2462', '\xbd \xbe', '\u0663\u0664\u0665',
    'x=1', 'C++', 'a_b_c', 'snake_case camelCase PascalCase', 'def f(x):\n    return x + 1\n',
    'if (a && b) {\n\tc();\n}', '<html><body>hi</body></html>', 'https://example.com/a?b=c&d=e#f',
    'foo@bar.com', '#include <stdio.h>', '// comment', '/* c */', '$x = "y";', "'single'", '`code`',
    '```py\nprint(1)\n```', '\u4e2d\u56fd', '\u4e2d\u56fd\u4eba\u6c11',
    '\u4f60\u597d\uff0c\u4e16\u754c\uff01', '\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002',
    '\u4e2d\u6587 English \u6df7\u5408 text', '\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8',
    '\u30ab\u30bf\u30ab\u30ca', '\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8',
    '\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440',
    '\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac',
    '\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0646\u0635', '\u05e2\u05d1\u05e8\u05d9\u05ea',
    '\u0939\u093f\u0928\u094d\u0926\u0940', '\u0e44\u0e17\u0e22', 'Vi\u1ec7t Nam',
    'na\xefve caf\xe9 r\xe9sum\xe9', 'e\u0301 combining', '\xc5 \xc5', '\ufb01 ligature',
    '\uff26\uff55\uff4c\uff4c\u3000\uff57\uff49\uff44\uff54\uff48',
    '\U0001d573\U0001d58a\U0001d591\U0001d591\U0001d594', '\U0001f999', '\U0001f999\U0001f999',
    '\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466', '\U0001f1eb\U0001f1f7',
    '\U0001f44d\U0001f3fd', 'emoji \U0001f600 in text', '\u200b zero width', '\ufeffbom', '\xa0nbsp\xa0',
    '\u3000ideographic', '\u2014\u2013\u2010-', '\u201cquotes\u201d \u2018single\u2019', '\u2026',
    'a\u2026b', '!!!', '???!!!', '----', '====', '....', '****', 'a\r\nb', 'a\rb', '\r\n', 'x\n\ny',
    'x \n y', 'x\n  y', '   leading and trailing   ', 'tab\tseparated\tvalues', '    indented',
    '\n    indented\n', 'a  b   c    d     e', 'aaaaaaaaaaaaaaaa', 'abababababab', 'the the the the',
    'supercalifragilisticexpialidocious', '\u2581', '\u2581\u2581hello', 'a\u2581b', '<0x41>', '<unk>x',
    '\x00', '\x01\x02', '\x7f', '\u0378 unassigned', '\U00020000 rare', '\u9f98\u9750\u9f49', '\xdf \u1e9e',
    '\u0130 \u0131', '\u017f', '0x1F', '1e-5', '-1', '+1', '50%', '$100', '\u20ac5', '\xa33', '\xa59',
    '50\xb0C', 'H\u2082O', 'E=mc\xb2', '\u2211\u222b\u221a', '\u2192\u2190', '\u2665', '\xae\xa9\u2122',
]
SPECIAL = [
    '<|im_start|>user\nhi<|im_end|>\n', 'a<|im_end|>b', ' <|endoftext|> ', '<|im_start|><|im_start|>',
    '<|im_start', '<repo_name>x<file_sep>',
]
PATTERNS = [r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"]


def letters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    more = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(more)}}


class Bpe:
    def __init__(self, path):
        import gguf
        field = lambda name: gguf.GGUFReader(path).fields["tokenizer.ggml." + name].contents()
        self.tokens = field("tokens")
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.ranks = {tuple(m.split(" ")): i for i, m in enumerate(field("merges"))}
        self.special = [t for t, ty in zip(self.tokens, field("token_type")) if ty == 3]
        self.letters = letters()

    def encode(self, text):
        import regex
        by_length = sorted(self.special, key=len, reverse=True)
        for part in regex.split("(" + "|".join(map(regex.escape, by_length)) + ")", text):
            if part in self.special:
                yield self.ids[part]
                continue
            words = [part]
            for pattern in PATTERNS:
                words = [w for word in words for w in isolate(regex, pattern, word)]
            for word in words:
                yield from self.word(word)

    def word(self, word):
        parts = [self.letters[b] for b in word.encode()]
        while True:
            pairs = [(self.ranks[p], i) for i, p in enumerate(zip(parts, parts[1:])) if p in self.ranks]
            if not pairs:
                return [self.ids[p] for p in parts]
            i = min(pairs)[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]


def isolate(regex, pattern, text):
    at = 0
    for m in regex.finditer(pattern, text):
        yield from (s for s in (text[at:m.start()], m.group()) if s)
        at = m.end()
    if text[at:]:
        yield text[at:]


def report(name, strings, want, got):
    wrong = [(s, want(s), got(s)) for s in strings if want(s) != got(s)]
    for case in wrong:
        print(*case)
    print(f"{name}: {len(strings)} strings, {len(wrong)} differ")
    return bool(wrong)


def main(reference, folder):
    rebuilt = os.path.join(folder, "tokenizer.json")
    failed = False
    if os.path.exists(rebuilt):
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(rebuilt)
    if reference.endswith(".gguf"):
        bpe = Bpe(reference)
        return report(rebuilt, STRINGS + SPECIAL, lambda s: list(bpe.encode(s)), lambda s: tokenizer.encode(s).ids)
    from sentencepiece import SentencePieceProcessor
    judge = SentencePieceProcessor(model_file=reference)
    model = os.path.join(folder, "tokenizer.model")
    ours = SentencePieceProcessor(model_file=model)
    failed |= report(model, STRINGS, judge.encode, ours.encode)
    if os.path.exists(rebuilt):
        # Special tokens in text are recognised by tokenizer.json and never by SentencePiece.
        plain = [s for s in STRINGS if "<unk>" not in s]
        failed |= report(rebuilt, plain, judge.encode, lambda s: tokenizer.encode(s, add_special_tokens=False).ids)
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
