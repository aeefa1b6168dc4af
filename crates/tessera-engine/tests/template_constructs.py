"""Constructs of Jinja and of Python that a chat template can use, written for this test. Each line is a
template of its own; `make_template_golden.py` asks Python's Jinja what it makes of it."""

# `s` is a string, `l` a list, `d` a dict, `n` a number; `messages` and `tools` are a conversation's.
VARIABLES = {
    "s": "The quick, brown fox — Ünï 🙂\n jumps  over\tit",
    "l": [3, 1, 2, 1],
    "w": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": [1, 2.5, None, True], "items": "x", "c d": {"e": "é\"'\n"}},
    "n": 42,
    "f": 3.14159,
    "empty": "",
    "people": [{"name": "Ann", "age": 30, "city": "X"}, {"name": "bob", "age": 25, "city": "Y"}, {"name": "Cy", "age": 30}],
}

METHODS = r"""
'a-b'.partition('-')
'ab'.partition('-')
'a-b-c'.rpartition('-')
'abc'.rpartition('-')
'a-b-c'.rsplit('-', 1)
'a-b-c'.rsplit('-')
' a  b '.rsplit()
' a  b c '.rsplit(None, 1)
' a  b c '.split(None, 1)
' a  b c '.split()
'a,b,,c'.split(',')
'a,b,,c'.split(',', 2)
'a,b'.split(sep=',')
'a,b,c'.split(',', maxsplit=1)
'a,b,c'.rsplit(',', maxsplit=1)
''.split()
''.split(',')
'abc'.split('')
'abc'.removeprefix('a')
'abc'.removeprefix('x')
'abc'.removesuffix('bc')
'abc'.removesuffix('')
'x'.rjust(3)
'x'.rjust(3, '*')
'x'.ljust(3) ~ '|'
'x'.ljust(3, '-')
'x'.center(4) ~ '|'
'x'.center(5, '-')
'ab'.center(5, '-')
'ab'.center(1)
'42'.zfill(5)
'-42'.zfill(5)
'+4'.zfill(1)
'abcabc'.index('c')
'abcabc'.rindex('c')
'abcabc'.index('x')
'abcabc'.find('c', 3)
'abcabc'.find('a', 1, 3)
'abcabc'.find('')
'éabc'.find('b')
'abcabc'.rfind('a')
'abcabc'.rfind('a', 0, 3)
'abcabc'.count('bc')
'abcabc'.count('')
'abcabc'.count('a', 1)
'aBc Def'.swapcase()
'ß'.upper()
'STRASSE ß'.casefold()
'İ'.lower()
'ΑΣ'.lower()
'hello wORLD it\'s'.title()
'hello-world x1y'.title()
'hELLO World'.capitalize()
'ǆ'.capitalize()
'abc'.isalpha()
'ab1'.isalnum()
''.isalpha()
'12'.isdigit()
'½'.isdigit()
'½'.isnumeric()
'²'.isdigit()
'²'.isdecimal()
'12'.isdecimal()
'٣'.isdecimal()
'abc'.islower()
'a1'.islower()
'1'.islower()
'A B'.isupper()
'Ab Cd'.istitle()
'AB'.istitle()
' \t'.isspace()
''.isspace()
'abc'.isidentifier()
'1a'.isidentifier()
'abc\n'.isprintable()
'abc'.isprintable()
'abc'.isascii()
'é'.isascii()
'  x '.strip() ~ '|'
'xxaxx'.strip('x')
'abcba'.strip('ab')
'abcba'.lstrip('ab')
'abcba'.rstrip('ab')
'  x '.lstrip() ~ '|'
'  x '.rstrip() ~ '|'
'  x '.strip(None) ~ '|'
'\x1cx\x85'.strip()
'\u200bx'.strip() | length
'aXbX'.replace('X', '-')
'aXbX'.replace('X', '-', 1)
'aXbX'.replace('X', '-', count=1)
'ab'.replace('', '-')
'ab'.replace('', '-', 2)
'a\nb\r\nc\rd'.splitlines()
'a\nb\r\nc'.splitlines(true)
'a\nb\n'.splitlines(keepends=true)
''.splitlines()
'a\x0bb\u2028c'.splitlines()
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.startswith('b', 1)
'abc'.endswith('bc')
'abc'.endswith(('x', 'c'))
'abc'.endswith('b', 0, 2)
', '.join(['a', 'b'])
', '.join(w)
'-'.join('abc')
','.join([1, 2])
','.join(d)
'a\tb'.expandtabs()
'a\tb'.expandtabs(4)
'{} {}'.format(1, 'x')
'{0}-{1}-{0}'.format('a', 'b')
'{a}{b}'.format(a=1, b=2)
'{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c')
'{:05d} {:x} {:.2f} {:,}'.format(42, 255, 3.14159, 1234567)
'{!r}'.format('a')
'{{}}'.format()
'{:*^9}'.format('mid')
'{a[0]} {b.c}'.format(a=[1], b={'c': 2})
'{} {}'.format(1)
'{}'.format(none)
'{}'.format([1, 'a', none, true])
'abc'.translate({97: 'x'})
'abc'.encode('utf-8')
'é'.encode()
'abc'.nosuch()
'abc'.format_map({'a': 1})
'%s is %d' % ('x', 3)
'%s' % 'x'
'%5.2f|%-5s|%05d|%x|%%' % (3.14159, 'a', 42, 255)
'%s' % [1]
'%(a)s' % {'a': 1}
'%r' % 'x'
[1, 2].index(2)
[1, 2].index(3)
[1, 2, 1].index(1, 1)
[1, 2, 1].count(1)
[1, 2].copy()
[1].append(2)
[1].pop()
[2, 1].sort()
[1].extend([2])
(1, 2).index(2)
(1, 2, 2).count(2)
[1, 2].get(0)
d.get('b')
d.get('zz')
d.get('zz', 'dflt')
d.get('zz') is none
d.items() | list
d.keys() | list
d.values() | list
d.keys()
d.values()
d.items()
d.copy()
d.pop('b')
d.update({'z': 1})
d.setdefault('b', 2)
d.items
d['items']
d.b
d['c d'].e
d.nosuch
d.nosuch is defined
{'a': 1}.get('a')
dict(a=1, b=2)
dict([('a', 1)])
dict({'a': 1}, b=2)
dict(d, b=7).b
(1).bit_length()
(5).real
(1.5).is_integer()
(2.0).is_integer()
true.real
"""

VALUES = r"""
1
-1
1.0
1e16
1e15
1e22
123456789.123456789
1e-5
0.0001
1e300 * 1e10
-0.0
0.1 + 0.2
1_000
10 ** 20
2 ** 100
2 ** -1
7 // 2
-7 // 2
7.5 // 2
7 % 3
-7 % 3
7.5 % 2
-7.5 % 2
7 / 2
6 / 2
1 + 1.5
1 == 1.0
true + true
true == 1
1 + true
'a' * 3
3 * 'a'
'a' * 0
'a' * -1
[1] * 3
'a' + 'b'
'a' + 1
1 + 'a'
[1] + [2]
(1,) + (2,)
[1] + (2,)
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1]
none
true
false
True
None
[none, true, false, 1.0, 'a', "it's", 'q"q', 'é', '\n', '\\']
['\x00', '\x7f', '\u200b', '🙂', '\xa0', '\u0301']
(1, 'a')
(1,)
()
[]
{}
{'a': 1, 'b': [none]}
{'a': {'b': 'c'}}
{1: 2, none: 3, true: 4}
{'a': 1}['a']
{'a': 1} == {'a': 1}
d
l
s
s[0]
s[-1]
s[4:9]
s[::-1]
s[::2]
l[0]
l[-1]
l[1:]
l[:-1]
l[::-1]
l[10:]
l[10]
l[-10:]
l[1:3] == [1, 2]
(1, 2, 3)[1:]
'abc'[5]
'abc'[1]
nosuch
nosuch.attr
nosuch['attr']
nosuch()
nosuch is defined
nosuch is undefined
nosuch is none
nosuch == none
nosuch or 'dflt'
nosuch and 'x'
not nosuch
nosuch ~ 'x'
nosuch + 'x'
'x' + nosuch
nosuch | length
nosuch | default('d')
nosuch | default('d', true)
'' | default('d')
'' | default('d', true)
'' | default('d', boolean=true)
none | default('d')
none | d('d', true)
nosuch | list
nosuch | join(',')
nosuch | upper
nosuch | tojson
none.attr
none['x']
none | length
1 < 2 < 3
1 < 3 > 2
1 in [1]
1 not in [1]
'a' in 'abc'
'a' in d
'b' in d
1 in 'abc'
none in [none]
'a' in none
'a' in nosuch
1 < 'a'
'a' < 'b'
[1, 2] < [1, 3]
none < 1
true and 'x'
'' or 'y'
0 or none
not []
not {}
not ''
not 0.0
'x' if true
'x' if false
'x' if false else 'y'
('x' if false) is defined
1 if '' else 2
"a" "b"
'\'' ~ "\""
'\t|\r|\x41|\u00e9|\a|\q|\101'
'a\
b'
"\N{BULLET}"
0x1F
0b11
0o17
1.5e3
- 2 ** 2
(-2) ** 2
2 ** 3 ** 2
-1 | abs
not 1 == 2
1 == 2 or 3
-3.7 | int
messages | length
messages[0]
messages[0].role
messages[0]['role']
messages[-1].content
messages[0].nosuch
messages[99]
messages[99] is defined
messages[0].items() | list
messages[::-1][0].role
messages[:1]
messages[1:][0].role
messages | map(attribute='role') | list
messages | selectattr('role', 'equalto', 'user') | list | length
messages | selectattr('role', '==', 'user') | map(attribute='content') | join('|')
messages | rejectattr('role', 'in', ['user', 'system']) | map(attribute='role') | join(',')
messages | selectattr('tool_calls') | list | length
messages | selectattr('tool_calls', 'defined') | list | length
messages | groupby('role') | map(attribute='grouper') | list
messages | groupby('role') | length
messages | last
messages | first
tools
tools | tojson
tools[0].function.parameters.properties | dictsort
range(3)
range(3) | list
range(1, 10, 3) | list
range(5, 0, -2) | list
range(0) | list
range(3)[1]
range(3) | length
3 in range(5)
range(3) | last
range(100001) | length
cycler is defined
self is defined
loop is defined
"""

FILTERS = r"""
-5 | abs
'a' | abs
l | batch(3) | list
l | batch(3, 'x') | list
l | slice(3) | list
l | slice(3, 'x') | list
'hELLO wORLD' | capitalize
'x' | center(5) ~ '|'
'x' | center ~ '|'
[1, 2] | count
d | dictsort
{'B': 2, 'a': 3, 'c': 1} | dictsort
{'B': 2, 'a': 3, 'c': 1} | dictsort(true)
{'B': 2, 'a': 3, 'c': 1} | dictsort(by='value')
{'B': 2, 'a': 3, 'c': 1} | dictsort(false, 'value', true)
{'B': 2, 'a': 3} | dictsort(reverse=true)
'<a href="x">&\'' | escape
'<a>' | e
'<a>' | forceescape
'<a>' | e | e
'<a>' | safe
('<a>' | safe) ~ '<'
1 | filesizeformat
0 | filesizeformat
1000 | filesizeformat
13000 | filesizeformat
1500000 | filesizeformat
1500000 | filesizeformat(true)
'2048' | filesizeformat(binary=true)
l | first
[] | first
'abc' | first
'3.5' | float
'x' | float
'x' | float(1.5)
3 | float
'%s-%s' | format('a', 1)
'%(a)s' | format(a=1)
'%.3f' | format(f)
people | groupby('age')
people | groupby('city', default='Z') | list
people | groupby('age') | map('last') | map('length') | list
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2)
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent(2, true, true)
'a\nb\n' | indent(width=3, first=true)
'a\nb' | indent('> ')
'a\nb' | indent('> ', true)
'42' | int
'x' | int
'x' | int(7)
'3.9' | int
3.9 | int
'0x1A' | int(0, 16)
'0b11' | int(base=2)
' 42 ' | int
none | int
'1e3' | int
d | items | list
nosuch | items | list
[1, 2] | items | list
[1, 2] | join
[1, 'a', none] | join(', ')
people | join(', ', attribute='name')
'abc' | join('-')
d | join('-')
l | last
'abc' | last
[] | last
'abc' | length
'éü🙂' | length
d | length
5 | length
'abc' | list
d | list
range(3) | list
(1, 2) | list
5 | list
'ABC' | lower
5 | lower
people | map(attribute='name') | list
people | map(attribute='city') | list
people | map(attribute='city', default='?') | list
w | map('upper') | list
w | map('default', 'x') | list
['a b', 'c'] | map('replace', ' ', '_') | list
[[1, 2], [3]] | map('first') | list
[[1, 2], [3]] | map(attribute=0) | list
people | map(attribute='name.x') | list
['1', '2'] | map('int') | sum
w | map
w | max
w | max(case_sensitive=true)
l | max
people | max(attribute='age')
[] | max
l | min
w | min
people | min(attribute='name')
d | pprint
[1, 'a'] | pprint
[0, 1, 2] | reject | list
l | reject('odd') | list
people | rejectattr('city') | map(attribute='name') | list
'aaa' | replace('a', 'b')
'aaa' | replace('a', 'b', 2)
'aaa' | replace('a', 'b', count=1)
5 | replace('5', 'x')
l | reverse
l | reverse | list
'abc' | reverse
2.5 | round
3.5 | round
42.55 | round(1)
42.55 | round(1, 'floor')
42.55 | round(method='ceil')
42 | round
1234 | round(-2)
2.675 | round(2)
-2.5 | round
[0, 1, 2] | select | list
l | select('odd') | list
l | select('>', 1) | list
l | select('divisibleby', 2) | list
people | selectattr('age', 'gt', 26) | map(attribute='name') | list
people | selectattr('city', 'defined') | map(attribute='name') | list
l | sort
l | sort(reverse=true)
l | sort(true)
w | sort
w | sort(case_sensitive=true)
w | sort(false, true)
people | sort(attribute='name') | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(attribute='age', reverse=true) | map(attribute='name') | list
[1, 'a'] | sort
'bca' | sort
5 | string
none | string
[1] | string
1.0 | string
'<p>a  <b>b</b>\n &amp; c</p><!-- x -->' | striptags
l | sum
[0.1, 0.2] | sum
people | sum(attribute='age')
people | sum('age', 5)
[] | sum
[1] | sum(start=2)
"hello wORLD it's x-y" | title
'foo (bar) [baz] {q} <r>' | title
d | tojson
d | tojson(indent=2)
d | tojson(2)
d | tojson(true)
d | tojson(ensure_ascii=true)
d | tojson(ensure_ascii=false)
d | tojson(separators=(',', ':'))
d | tojson(separators=[', ', ' : '])
d | tojson(indent=1, separators=(',', ': '))
d | tojson(sort_keys=true)
d | tojson(sort_keys=true, indent=4)
d | tojson(indent='--')
d | tojson(indent='\t', sort_keys=true)
d | tojson(indent=0)
d | tojson(indent=-1)
d | tojson(indent=none)
d | tojson(false, 2)
d | tojson(true, none, (',', ':'), true)
{'b': {'z': 1, 'a': 2}, 'a': [{'y': 1, 'x': 2}]} | tojson(sort_keys=true)
{1: 2, true: 3, none: 4, 1.5: 5} | tojson
{3: 2, 1: 3} | tojson(sort_keys=true)
{'é': 1, 'z': 2, 'Z': 3, '🙂': 4, '\uffff': 5} | tojson(sort_keys=true)
[] | tojson
{} | tojson
[] | tojson(indent=2)
{} | tojson(indent=2)
[[], {}] | tojson(indent=2)
'</script> & \' " \\ / \x7f \x01 é 🙂 \u2028' | tojson
'é 🙂 \x7f' | tojson(ensure_ascii=true)
1.0 | tojson
1e16 | tojson
1e-7 | tojson
[1e300 * 1e10, -1e300 * 1e10] | tojson
none | tojson
true | tojson
(1, 2) | tojson
range(2) | tojson
([1] + [2]) | tojson
([1] + [2]).index(2)
([1] + [2]).count(1)
([1] + [2]) is sequence
([1] + [2]) is iterable
([1] + [2]) | string
d | tojson(nosuch=1)
'a' | tojson | tojson
d.items() | list | tojson
'  x ' | trim ~ '|'
'xxaxx' | trim('x')
5 | trim
'The quick brown fox' | truncate(10)
'The quick brown fox' | truncate(10, true)
'The quick brown fox' | truncate(10, false, '…')
'The quick brown fox' | truncate(10, end='', leeway=0)
'The quick brown fox' | truncate(17)
'The quick brown fox' | truncate(17, leeway=0)
'The quick brown fox' | truncate(length=9, killwords=true, end='..', leeway=0)
'abc' | truncate(1)
'abcdefghijk' | truncate(2)
'abcdefghijk' | truncate(5)
s | truncate
l | unique | list
w | unique | list
w | unique(case_sensitive=true) | list
people | unique(attribute='age') | map(attribute='name') | list
'abc' | upper
'a b/ü&=?' | urlencode
{'a': 1, 'b c': 'ü/'} | urlencode
[('a', 1), ('b', '&')] | urlencode
'see http://x.com now' | urlize
'a b_c d-e 1' | wordcount
'' | wordcount
'The quick brown fox jumps' | wordwrap(10)
'abcdefghijklmno pq' | wordwrap(5)
'abcdefghijklmno pq' | wordwrap(5, false)
'a-b-c-d-e-f' | wordwrap(4)
'a\n\nb c' | wordwrap(3, wrapstring='|')
{'a': 1, 'b': none, 'c': '<'} | xmlattr
{'a': 1} | xmlattr(false)
people[0] | attr('name')
'a' | attr('upper')
l | nosuch
l | tojson | length
'a' | upper | lower | title
(1, 2) | first
'abc' | batch(2) | map('join') | list
d | map('upper') | list
[3, 1] | sort | first
[true, 'a', 1.5, none] | map('string') | list
[['a', 1], ['b', 2]] | map('join', '=') | list
'a' | string | length
[1, 2, 3] | select('in', [1, 3]) | list
[1, 2, 3] | reject('eq', 2) | join
"""

TESTS = r"""
true is boolean
1 is boolean
nosuch is callable
range is callable
1 is callable
1 is defined
10 is divisibleby 5
10 is divisibleby(3)
1 is eq 1
1 is equalto(1)
1 is == 1
2 is even
'<' is escaped
false is false
0 is false
'upper' is filter
'nosuch' is filter
1.5 is float
1 is float
2 is ge 1
2 is gt 1
2 is greaterthan 1
1 is in [1, 2]
'a' is in 'abc'
1 is integer
true is integer
1.0 is integer
'a' is iterable
l is iterable
1 is iterable
d is iterable
1 is le 1
'abc' is lower
'aBc' is lower
1 is lt 2
1 is lessthan 2
d is mapping
l is mapping
1 is ne 2
none is none
1 is not none
1 is number
true is number
'1' is number
3 is odd
none is sameas none
true is sameas true
1 is sameas true
l is sameas l
'a' is sequence
l is sequence
d is sequence
1 is sequence
range(2) is sequence
nosuch is sequence
none is iterable
nosuch is iterable
range(2) is iterable
'a' is string
1 is string
nosuch is string
'odd' is test
'nosuch' is test
true is true
1 is true
nosuch is undefined
'ABC' is upper
1 is not string
not 1 is string
1 is nosuch
'a' is not in ['b']
d.a is iterable and d.a is not string and d.a is not mapping
messages[0].content is string
(1, 2) is sequence
5 is divisibleby 0
"""

BLOCKS = [
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}\n{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in l %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }};{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }};{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for c in 'äb🙂' %}{{ c }}-{% endfor %}",
    "{% for x in nosuch %}{{ x }}{% endfor %}|",
    "{% for x in none %}{{ x }}{% endfor %}|",
    "{% for x in 5 %}{{ x }}{% endfor %}|",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% for y in w %}{% if y == 'A' %}{% break %}{% endif %}{{ x }}{{ y }}{% endfor %}{% endfor %}",
    "{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% set x = 1 %}{% for y in l %}{% set x = y %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns['a'] }}",
    "{% set ns = namespace() %}{% set ns.x = [1] %}{% set ns.x = ns.x + [2] %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}{{ ns._x }}",
    "{% set x = d %}{% set x.b = 2 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1, 2, 3] %}{{ a }}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x }}{{ x | length }}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% if x is not defined %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% if true %}{% set y = 2 %}{% endif %}{{ y }}",
    "{% if l %}a{% elif w %}b{% else %}c{% endif %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set a = 1 %}{{ a }}{% endwith %}",
    "{% filter upper %}abc {{ 'd' }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aaa{% endfilter %}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}x{% endmacro %}{{ m(1, 2) }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}",
    "{% macro m() %}{{ caller('a') }}{{ caller('b') }}{% endmacro %}{% call(x) m() %}<{{ x }}>{% endcall %}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}",
    "{% macro fact(n) %}{% if n > 1 %}{{ n * (fact(n - 1) | int) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}",
    "{%- macro m(x) -%}\n  {{- x -}}\n{%- endmacro -%}\n{{- m('a') }} {{ m('b') | upper }}{{ m('') == '' }}",
    "{% set g = 'g' %}{% macro m() %}{{ g }}{{ messages | length }}{% endmacro %}{{ m() }}",
    "{% macro m(x) %}{% set y = x %}{{ y }}{% endmacro %}{{ m(1) }}{{ y }}",
    "{% macro m(x, y=x) %}{{ y }}{% endmacro %}{{ m(3) }}",
    "{% macro m(m2) %}{{ m2(1) }}{% endmacro %}{% macro k(a) %}k{{ a }}{% endmacro %}{{ m(k) }}",
    "{# comment #}a{#- x -#} b",
    "a {#- x -#}\n b",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    "{%- raw -%} {{ x }} {%- endraw -%} y",
    "  {% if true %}\n  a\n  {% endif %}\nb\n",
    "a\n  {%+ if true %}\nb{% endif %}",
    "a {%- if true -%} b {%- endif -%} c",
    "a\n\n{%- if true %}\n\nb{% endif %}\n\n\nc\n",
    "{{ 'a' }}\n{{ 'b' }}\n",
    "{{- ' a ' -}} \n b",
    "x {{ 1 }}   \n   {% set a = 1 %}   \n  y",
    "x\r\n{% if true %}\r\ny{% endif %}\r\nz\r\n",
    "a\n    {# c #}\n  b",
    "{% if true %}\n\n\nx{% endif %}",
    "\n{% if true %}x{% endif %}\n",
    "{%if true%}a{%endif%}{{1}}",
    "{% block b %}in{% endblock %}{{ self.b() }}",
    "{% do 1 %}",
    "{% trans %}x{% endtrans %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{% autoescape false %}{{ '<' }}{% endautoescape %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% set c = cycler('a', 'b') %}{% for x in l %}{{ c.next() }}{% endfor %}",
    "{{ cycler() }}",
    "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{% set j = joiner(sep='|') %}{{ j() }}a{{ j() }}b",
    "{% generation %}a{% endgeneration %}b",
    "x\n  {% generation %}\n  a\n  {% endgeneration %}\nb",
    "{%- generation -%} a {%- endgeneration -%} b",
    "{%+ generation %}a{%+ endgeneration +%}\nb",
    "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% for m in messages %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{% raw %}{% generation %}{% endraw %}x",
    "{{ '{% generation %}' }}",
    "{# {% generation %} #}x",
    "{{ '%}' }}{{ '{%' }}{% if '%}' %}y{% endif %}",
    "{{ strftime_now('%d %b %Y') }}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}",
    "{{ strftime_now('%A %B %j %p %y %e %I %-d %c|%x|%X|%D|%R|%u|%w|%C|%n|%t|%f|%z|%Z') }}",
    "{{ raise_exception('no ' ~ 1) }}",
    "{{ raise_exception('x') if false else 'ok' }}",
    "{{ raise_exception(1) }}",
    "{{ raise_exception() }}",
    "{{ raise_exception(message='kw') }}",
    "{% set x = raise_exception('in set') %}",
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('tool ' + m.content) }}{% endif %}{% endfor %}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ nosuch_token }}",
    "{{ messages | map(attribute='content') | select('string') | map('trim') | join('\\n') }}",
    "{%- for message in messages %}{%- if message['content'] is string %}{{- message['content'] | trim }}{%- else %}{%- for c in message['content'] or [] %}{{ c }}{% endfor %}{%- endif %}{%- endfor %}",
    "{%- for message in messages -%}\n{{ message.role | upper | replace('USER', 'U') }}: {{ (message.content or '') | replace('\\n', ' ') }}\n{%- endfor -%}",
    "{% set t = tools[0].function %}{{ t.name }}({% for p, v in t.parameters.properties.items() %}{{ p }}: {{ v.type }}{{ ', ' if not loop.last }}{% endfor %})",
    "{%- set ns = namespace(found=false) -%}{%- for m in messages -%}{%- if m.role == 'user' and not ns.found -%}{%- set ns.found = true -%}{{ m.content }}{%- endif -%}{%- endfor -%}",
    "{{ messages[0].content.split('x')[0].strip().lower().replace(' ', '_') }}",
    "{% for m in messages | reverse %}{{ m.role[0] }}{% endfor %}",
    "{% for m in messages[1:-1] %}{{ m.role[:2] }}{% endfor %}",
    "{{ messages | map(attribute='role') | unique | sort | join(',') }}",
    "{% for group in messages | groupby('role') %}{{ group.grouper }}:{{ group.list | length }};{% endfor %}",
    "{% for role, group in messages | groupby('role') %}{{ role }}:{{ group | length }};{% endfor %}",
    "{% for tool in tools %}{{ tool.function | tojson(indent=4, separators=(',', ': ')) }}{% endfor %}",
    "{% set x = [] %}{% set x = x + [1] %}{% set _ = x.append(2) %}{{ x }}",
    "{% set x = {} %}{% set _ = x.update({'a': 1}) %}{{ x }}",
    "{% set x = dict(d, z=1) %}{{ x.z }}{{ d.z }}",
    "{% set a = b = 1 %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% if a %}",
    "{% endif %}",
    "{{ 1",
    "{{ }}",
    "{% nosuch %}",
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ self }}|{{ self._TemplateReference__context }}",
    "{{ range.__globals__ }}",
    "{{ {}.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ open }}|{{ open('x') }}",
    "{{ d.a[2] is none }}{{ d.a[1] }}{{ d['a'][3] }}",
    "{{ loop }}",
    "{% for x in l %}{{ loop }}{% break %}{% endfor %}",
    "{{ namespace(a=1) }}",
    "{{ joiner }}",
    "{{ not_a_function('x') }}",
    "{{ 'x'.upper }}",
    "{{ messages[0].content.upper() if messages[0].content else '' }}",
    "{{ (messages | selectattr('role', 'equalto', 'system') | first).content }}",
    "{{ (messages | selectattr('role', 'equalto', 'nobody') | first) }}|",
    "{{ (messages | selectattr('role', 'equalto', 'nobody') | first).content }}",
    "{{ (messages | selectattr('role', 'equalto', 'nobody') | list) }}",
    "{{ [1] | map('string') is iterable }}",
    "{{ 1 }}{% set x = 5 -%}\n   {{ x }}",
    "{{ [x for x in l] }}",
    "{{ l[0], l[1] }}",
    "{{ 'a' if 1 else 'b' if 0 else 'c' }}",
    "{{ l | map('string') | join('-') ~ '!' }}",
    "{{ -l[0] }}{{ +l[0] }}",
    "{{ 1 if l else }}",
    "{{ foo(*[1, 2]) }}",
    "{{ '{}{}'.format(*[1, 2]) }}{{ dict(**{'a': 1}) }}",
    "{% for i in range(3) %}{% set outer = loop %}{% for j in range(2) %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{%- set sep = joiner(' and ') -%}{%- for p in people if p.age == 30 -%}{{ sep() }}{{ p.name }}{%- endfor -%}",
    "{{ people | map(attribute='age') | sum / people | length }}",
    "{{ {'a': 1, 'a': 2} }}",
    "{{ {'x': 1}.x }}{{ {'x': 1}['y'] }}|{{ {'x': 1}['y'] is defined }}",
    "{{ '%02d:%02d' | format(5, 7) }}",
    "{{ 10 | string | length }}{{ '5' | int + 5 }}",
    "{{ true and not false or false }}",
    "{{ 'yes' if 'a' in ['a'] and 'b' not in ['a'] else 'no' }}",
    "{{ ['a', 'b'] | join }}{{ ('a', 'b') | join('+') }}",
    "{{ '\\n' }}{{ '\\\\n' }}{{ \"\\t\" }}",
]


def expressions():
    """Each expression as a template."""
    for block in (METHODS, VALUES, FILTERS, TESTS):
        for line in block.replace("\\\nb'", "\\\x00b'").strip().split("\n"):
            yield "{{ " + line.replace("\x00", "\n") + " }}"


CONSTRUCTS = list(dict.fromkeys([*expressions(), *(b for b in BLOCKS if b)]))
