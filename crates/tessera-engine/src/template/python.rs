//! Methods of Python's strings, lists and dictionaries, as templates call them. Places in a string are
//! counted in characters, and a result that grows is paid for before it is made.

use super::arguments::{Arguments, fail, items, pay};
use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// What is called where a value has no method of the name: Python's.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => match string_method(state, value.as_str().unwrap_or_default(), name, args)? {
            Some(result) => Ok(result),
            None => unknown_method_callback(state, value, name, args),
        },
        // A sum of lists is an iterable here.
        ValueKind::Seq | ValueKind::Iterable => match name {
            "index" => index_of(state, value, args),
            "count" => {
                let a = Arguments::bind(args, ["value"])?;
                let wanted = a.required(0)?;
                Ok(Value::from(items(state, value)?.iter().filter(|item| *item == wanted).count()))
            }
            "copy" if !value.is_tuple() => {
                Arguments::bind(args, [])?;
                Ok(value.clone())
            }
            _ => unknown_method_callback(state, value, name, args),
        },
        ValueKind::Map if name == "copy" => {
            Arguments::bind(args, [])?;
            Ok(value.clone())
        }
        ValueKind::Number if name == "is_integer" => {
            Arguments::bind(args, [])?;
            Ok(Value::from(f64::try_from(value.clone()).is_ok_and(|f| f.fract() == 0.0)))
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

fn index_of(state: &State, list: &Value, args: &[Value]) -> Result<Value, Error> {
    let a = Arguments::bind(args, ["value", "start", "stop"])?;
    let wanted = a.required(0)?;
    let list = items(state, list)?;
    let (start, stop) = (place(a.integer(1)?, 0, list.len()), place(a.integer(2)?, list.len(), list.len()));
    let found = (start..stop).find(|at| list[*at] == *wanted);
    found.map(Value::from).ok_or_else(|| fail("index: the value is not in the list"))
}

/// A place as Python's slices take it: from the end where it is negative, never beyond either end.
fn place(given: Option<i64>, default: usize, length: usize) -> usize {
    match given {
        None => default,
        Some(n) if n < 0 => length.saturating_sub(n.unsigned_abs().min(usize::MAX as u64) as usize),
        Some(n) => (n.min(length as i64)) as usize,
    }
}

/// What Python's `isspace` takes for a blank.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn string_method(state: &State, s: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let flag = |test: bool| -> Result<Option<Value>, Error> {
        Arguments::bind(args, [])?;
        Ok(Some(Value::from(test)))
    };
    let text = |made: String| -> Result<Option<Value>, Error> {
        Arguments::bind(args, [])?;
        Ok(Some(Value::from(made)))
    };
    pay(state, s.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let a = Arguments::bind(args, ["chars"])?;
            Ok(Some(Value::from(strip(s, a.text(0)?, name != "rstrip", name != "lstrip"))))
        }
        "split" | "rsplit" => {
            let a = Arguments::bind(args, ["sep", "maxsplit"])?;
            let most = a.integer(1)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            let parts = match a.text(0)? {
                Some("") => return Err(fail("split: the separator is empty")),
                Some(sep) if name == "split" => s.splitn(most.saturating_add(1), sep).collect(),
                Some(sep) => {
                    let mut parts: Vec<&str> = s.rsplitn(most.saturating_add(1), sep).collect();
                    parts.reverse();
                    parts
                }
                None => split_blanks(s, most, name == "rsplit"),
            };
            Ok(Some(parts.into_iter().map(Value::from).collect()))
        }
        "partition" | "rpartition" => {
            let a = Arguments::bind(args, ["sep"])?;
            let sep = a.required_text(0)?;
            if sep.is_empty() {
                return Err(fail("partition: the separator is empty"));
            }
            let found = if name == "partition" { s.split_once(sep) } else { s.rsplit_once(sep) };
            let parts = match found {
                Some((before, after)) => [before, sep, after],
                None if name == "partition" => [s, "", ""],
                None => ["", "", s],
            };
            Ok(Some(Value::from_object(Tuple::from(parts.map(Value::from)))))
        }
        "removeprefix" => {
            let a = Arguments::bind(args, ["prefix"])?;
            Ok(Some(Value::from(s.strip_prefix(a.required_text(0)?).unwrap_or(s))))
        }
        "removesuffix" => {
            let a = Arguments::bind(args, ["suffix"])?;
            Ok(Some(Value::from(s.strip_suffix(a.required_text(0)?).unwrap_or(s))))
        }
        "ljust" | "rjust" | "center" => {
            let a = Arguments::bind(args, ["width", "fillchar"])?;
            a.required(0)?;
            let width = usize::try_from(a.integer(0)?.unwrap_or(0)).unwrap_or(0);
            let mut fill = a.text(1)?.unwrap_or(" ").chars();
            let (Some(fill), None) = (fill.next(), fill.next()) else {
                return Err(fail(format!("{name}: expected one character to fill with")));
            };
            pad(state, s, width, fill, name).map(|s| Some(Value::from(s)))
        }
        "zfill" => {
            let a = Arguments::bind(args, ["width"])?;
            a.required(0)?;
            let width = usize::try_from(a.integer(0)?.unwrap_or(0)).unwrap_or(0);
            let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
            let padded = pad(state, digits, width.saturating_sub(sign.len()), '0', "rjust")?;
            Ok(Some(Value::from(format!("{sign}{padded}"))))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => find(s, name, args).map(Some),
        "startswith" | "endswith" => {
            let a = Arguments::bind(args, ["prefix", "start", "end"])?;
            let Some((_, part)) = part(s, a.integer(1)?, a.integer(2)?) else {
                return Ok(Some(Value::from(false)));
            };
            let affix = a.required(0)?;
            let affixes = match affix.as_str() {
                Some(_) => vec![affix.clone()],
                None if affix.is_tuple() => affix.try_iter()?.collect(),
                None => return Err(fail(format!("{name}: expected a string or a tuple of strings"))),
            };
            for affix in affixes {
                let affix = affix.as_str().ok_or_else(|| fail(format!("{name}: expected strings")))?;
                if if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) } {
                    return Ok(Some(Value::from(true)));
                }
            }
            Ok(Some(Value::from(false)))
        }
        "join" => {
            let a = Arguments::bind(args, ["iterable"])?;
            let mut out = String::new();
            for (i, item) in a.required(0)?.try_iter()?.enumerate() {
                let item = item.as_str().map(str::to_owned).ok_or_else(|| {
                    fail(format!("join: item {i}: expected a string, found {}", item.kind()))
                })?;
                pay(state, item.len() + s.len() + 64)?;
                if i > 0 {
                    out.push_str(s);
                }
                out.push_str(&item);
            }
            Ok(Some(Value::from(out)))
        }
        "splitlines" => {
            let a = Arguments::bind(args, ["keepends"])?;
            Ok(Some(lines(s, a.truth(0)).into_iter().map(Value::from).collect()))
        }
        "expandtabs" => {
            let a = Arguments::bind(args, ["tabsize"])?;
            let size = usize::try_from(a.integer(0)?.unwrap_or(8)).unwrap_or(0);
            pay(state, s.matches('\t').count().saturating_mul(size))?;
            Ok(Some(Value::from(expand_tabs(s, size))))
        }
        "format" => {
            // The crate fills to any width without paying for it.
            let mut widths = 0usize;
            for digits in s.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()) {
                widths = widths.saturating_add(digits.parse().unwrap_or(usize::MAX));
            }
            pay(state, widths)?;
            Ok(None)
        }
        "swapcase" => text(s.chars().map(|c| if c.is_uppercase() { lower(c) } else { upper(c) }).collect()),
        "casefold" => text(s.to_uppercase().to_lowercase()),
        "title" => text(title(s)),
        "capitalize" => {
            let mut chars = s.chars();
            text(chars.next().map(title_case).unwrap_or_default() + &chars.as_str().to_lowercase())
        }
        "isdecimal" => flag(!s.is_empty() && s.chars().all(is_decimal)),
        "isdigit" => flag(!s.is_empty() && s.chars().all(|c| is_decimal(c) || is_other_digit(c))),
        "isspace" => flag(!s.is_empty() && s.chars().all(is_space)),
        "istitle" => flag(s.chars().any(char::is_uppercase) && title(s) == s),
        "isidentifier" => {
            let word = |c: char| c == '_' || c.is_alphanumeric();
            flag(s.chars().all(word) && s.chars().next().is_some_and(|c| !c.is_numeric()))
        }
        _ => Ok(None),
    }
}

fn lower(c: char) -> String {
    c.to_lowercase().collect()
}

fn upper(c: char) -> String {
    c.to_uppercase().collect()
}

/// The first letter of a word: `ǆ` has a form of its own, `ß` becomes `Ss`.
fn title_case(c: char) -> String {
    match c {
        'Ǆ' | 'ǅ' | 'ǆ' => 'ǅ'.to_string(),
        'Ǉ' | 'ǈ' | 'ǉ' => 'ǈ'.to_string(),
        'Ǌ' | 'ǋ' | 'ǌ' => 'ǋ'.to_string(),
        'Ǳ' | 'ǲ' | 'ǳ' => 'ǲ'.to_string(),
        _ => {
            let mut upper = c.to_uppercase();
            let first = upper.next().map(String::from).unwrap_or_default();
            first + &upper.flat_map(char::to_lowercase).collect::<String>()
        }
    }
}

fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        let cased = c.is_uppercase() || c.is_lowercase() || matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ');
        out.push_str(&match (cased, inside) {
            (true, false) => title_case(c),
            _ => lower(c),
        });
        inside = cased;
    }
    out
}

/// Strips blanks, or the characters that are given.
pub(super) fn strip<'a>(s: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let goes = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => is_space(c),
    };
    let s = if left { s.trim_start_matches(goes) } else { s };
    if right { s.trim_end_matches(goes) } else { s }
}

/// Words between blanks; what is left after `most` splits stays whole.
fn split_blanks(s: &str, most: usize, from_right: bool) -> Vec<&str> {
    let inner = |s| strip(s, None, !from_right, from_right);
    let mut parts = Vec::new();
    let mut rest = inner(s);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = cut.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        let (before, after) = rest.split_at(at);
        let (part, left) = if from_right { (after, before) } else { (before, after) };
        parts.push(strip(part, None, true, true));
        rest = inner(left);
    }
    if from_right {
        parts.reverse();
    }
    parts
}

fn pad(state: &State, s: &str, width: usize, fill: char, how: &str) -> Result<String, Error> {
    let length = s.chars().count();
    let missing = width.saturating_sub(length);
    pay(state, missing.saturating_mul(fill.len_utf8()))?;
    let left = match how {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    let blanks = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(format!("{}{s}{}", blanks(left), blanks(missing - left)))
}

/// `s[start:end]` and the number of characters before it; `None` where it begins beyond the end.
fn part(s: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, s));
    }
    let length = s.chars().count();
    if start.is_some_and(|n| n > length as i64) {
        return None;
    }
    let (start, end) = (place(start, 0, length), place(end, length, length));
    let byte = |n: usize| s.char_indices().nth(n).map_or(s.len(), |(i, _)| i);
    (start <= end).then(|| (start, &s[byte(start)..byte(end)]))
}

fn find(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let a = Arguments::bind(args, ["sub", "start", "end"])?;
    let wanted = a.required_text(0)?;
    let part = part(s, a.integer(1)?, a.integer(2)?);
    if name == "count" {
        return Ok(Value::from(part.map_or(0, |(_, part)| part.matches(wanted).count())));
    }
    let found = part.and_then(|(start, part)| {
        let at = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) }?;
        Some(start + part[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(fail(format!("{name}: {wanted:?} is not in the string"))),
    }
}

fn lines(s: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut found = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(ends) {
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        found.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

fn expand_tabs(s: &str, size: usize) -> String {
    let mut out = String::with_capacity(s.len());
    let mut column = 0;
    for c in s.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                let blanks = size - column % size;
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// The zeros of Unicode's decimal digits; nine digits follow each.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
    0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40,
    0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066,
    0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950,
    0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6,
    0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

fn is_decimal(c: char) -> bool {
    let before = ZEROS.partition_point(|zero| *zero <= c as u32);
    before > 0 && c as u32 - ZEROS[before - 1] < 10
}

/// Digits that are no decimals: raised, circled and the like.
fn is_other_digit(c: char) -> bool {
    matches!(c as u32,
        0xb2..=0xb3 | 0xb9 | 0x1369..=0x1371 | 0x19da | 0x2070 | 0x2074..=0x2079 | 0x2080..=0x2089
        | 0x2460..=0x2468 | 0x2474..=0x247c | 0x2488..=0x2490 | 0x24ea | 0x24f5..=0x24fd | 0x24ff
        | 0x2776..=0x277e | 0x2780..=0x2788 | 0x278a..=0x2792 | 0x10a40..=0x10a43 | 0x10e60..=0x10e68
        | 0x11052..=0x1105a | 0x1f100..=0x1f10a)
}
