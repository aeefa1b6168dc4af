//! Grammars of calls whose arguments stand each for itself: between tags, or as Python's.

use super::lark::{literal, literal_regex};
use super::marks::{FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END};
use crate::grammar::{GrammarError, Member, Text, Way};
use std::fmt::Write;

/// The alternatives of a call, and the rules that they use.
type Written = Result<(String, String), GrammarError>;

fn refused(member: &Member, keyword: &str, message: &str) -> GrammarError {
    let name = member.name.replace('~', "~0").replace('/', "~1");
    let pointer = match keyword {
        "" => format!("{}/properties/{name}", member.pointer),
        keyword => format!("{}/properties/{name}/{keyword}", member.pointer),
    };
    let keyword = if keyword.is_empty() { "properties" } else { keyword };
    GrammarError::Schema { pointer, keyword: keyword.to_owned(), message: message.to_owned() }
}

/// The alternatives of all tools.
fn alternatives(
    names: &[&str],
    ways: &[Vec<Way>],
    rules: &mut String,
    call: impl Fn(&str, &str, &Way, &mut String) -> Result<String, GrammarError>,
) -> Result<String, GrammarError> {
    let mut out = Vec::new();
    for (i, (name, ways)) in names.iter().zip(ways).enumerate() {
        for (j, way) in ways.iter().enumerate() {
            out.push(call(name, &format!("{i}_{j}"), way, rules)?);
        }
    }
    if out.is_empty() {
        return Err(GrammarError::Unusable("nothing satisfies the schemas of the tools".to_owned()));
    }
    Ok(out.join(" | "))
}

/// `<function=name>`, each argument between its tags, and what closes them, each on a line of its own.
pub(super) fn tagged(names: &[&str], ways: &[Vec<Way>]) -> Written {
    // A value ends where its tag closes, whatever else it holds.
    let close = format!("\n{PARAMETER_END}\n");
    let mut rules = format!("NOT_CLOSED: ~/(?s:.*){}(?s:.*)/\n", literal_regex(PARAMETER_END));
    let call = alternatives(names, ways, &mut rules, |name, at, way, rules| {
        let mut out = literal(&format!("{FUNCTION}{name}>\n"));
        if way.open {
            let _ = write!(
                rules,
                "parameter_{at}: {} /[^<>\\n]{{1,64}}/ \">\\n\" VALUE_{at}\nVALUE_{at}: NOT_CLOSED {}\n",
                literal(PARAMETER),
                literal(&close)
            );
            let _ = write!(out, " parameter_{at}*");
        }
        for (k, member) in way.members.iter().enumerate() {
            let rule = format!("parameter_{at}_{k}");
            if member.name.contains(['<', '>', '\n']) {
                return Err(refused(member, "", "the name cannot stand in a tag"));
            }
            let value = match &member.value.text {
                Some(texts) => {
                    let terminal = format!("VALUE_{at}_{k}");
                    let texts = texts.iter().enumerate().map(|(l, text)| {
                        let inner = format!("TEXT_{at}_{k}_{l}");
                        let _ = writeln!(rules, "{inner}: {}", terminal_of(text, member)?);
                        Ok(inner)
                    });
                    let texts = texts.collect::<Result<Vec<_>, GrammarError>>()?;
                    let _ = writeln!(rules, "{terminal}: ({}) {}", texts.join(" | "), literal(&close));
                    terminal
                }
                None => {
                    let _ = writeln!(rules, "value_{at}_{k}: %json {} ", member.value.json);
                    format!("value_{at}_{k} {}", literal(&close))
                }
            };
            let tag = literal(&format!("{PARAMETER}{}>\n", member.name));
            let _ = writeln!(rules, "{rule}: {tag} {value}");
            let _ = write!(out, " {rule}{}", if member.required { "" } else { "?" });
        }
        Ok(format!("{out} {}", literal(FUNCTION_END)))
    })?;
    Ok((call, rules))
}

fn terminal_of(text: &Text, member: &Member) -> Result<String, GrammarError> {
    match text {
        Text::Literals(literals) => {
            if literals.iter().any(|text| text.contains(PARAMETER_END)) {
                return Err(refused(member, "enum", "a text that holds the tag which closes it"));
            }
            // An empty text matches nothing that a terminal needs.
            let literals = literals.iter().map(|text| format!("/{}/", literal_regex(text)));
            Ok(literals.collect::<Vec<_>>().join(" | "))
        }
        Text::Free { patterns: true, .. } => {
            let message =
                "patterns and formats cannot be held to in this model's format, which has texts as they are";
            Err(refused(member, "pattern", message))
        }
        Text::Free { min, max, .. } => {
            let most = max.map(|max| max.to_string()).unwrap_or_default();
            Ok(format!("/(?s:.{{{min},{most}}})/ & NOT_CLOSED"))
        }
    }
}

/// `name(key=value, key=value)`.
pub(super) fn pythonic(names: &[&str], ways: &[Vec<Way>]) -> Written {
    let mut rules =
        "nothing: \"\"\nanything: %json { \"x-guidance\": { \"whitespace_flexible\": false } } \n".to_owned();
    let call = alternatives(names, ways, &mut rules, |name, at, way, rules| {
        let open = literal(&format!("{name}("));
        if way.open {
            let _ = writeln!(rules, "argument_{at}: /[A-Za-z_][A-Za-z0-9_]{{0,63}}/ \"=\" anything");
            return Ok(format!("{open} (argument_{at} (\", \" argument_{at})*)? \")\""));
        }
        let last = way.members.len();
        for (k, member) in way.members.iter().enumerate() {
            let name = &member.name;
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.chars().all(fits) || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                return Err(refused(member, "", "the name is none that Python can call an argument by"));
            }
            let _ = writeln!(rules, "value_{at}_{k}: %json {} ", member.value.json);
            // Whether one stands before it decides about the comma.
            for after in [false, true] {
                let separator = if after { ", " } else { "" };
                let next = |after: bool| match k + 1 == last {
                    true => "nothing".to_owned(),
                    false => format!("from_{at}_{}_{}", k + 1, u8::from(after)),
                };
                let key = literal(&format!("{separator}{name}="));
                let _ =
                    write!(rules, "from_{at}_{k}_{}: {key} value_{at}_{k} {}", u8::from(after), next(true));
                let _ = match member.required {
                    true => writeln!(rules),
                    false => writeln!(rules, " | {}", next(after)),
                };
            }
        }
        let arguments = if last == 0 { String::new() } else { format!("from_{at}_0_0 ") };
        Ok(format!("{open} {arguments}\")\""))
    })?;
    Ok((call, rules))
}
