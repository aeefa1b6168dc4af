//! Editions of JSON Schema, and the words that they know.

use serde_json::Value;

/// The edition of JSON Schema that a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Draft {
    Four,
    Six,
    Seven,
    Nineteen,
    /// Not said: 2020-12, and forms of older editions that mean nothing else in it.
    Unsaid,
    Twenty,
}

impl Draft {
    /// By the value of `$schema`.
    pub fn of(uri: &Value) -> Option<Draft> {
        let uri = uri.as_str()?.trim().trim_end_matches('#');
        let path = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"))?;
        match path.strip_prefix("json-schema.org/")?.trim_end_matches('/') {
            "draft-04/schema" => Some(Draft::Four),
            "draft-06/schema" => Some(Draft::Six),
            "draft-07/schema" => Some(Draft::Seven),
            "draft/2019-09/schema" | "2019-09/schema" => Some(Draft::Nineteen),
            "draft/2020-12/schema" | "2020-12/schema" => Some(Draft::Twenty),
            // Whatever is the newest.
            "schema" => Some(Draft::Unsaid),
            _ => None,
        }
    }

    /// The keyword that names a resource.
    pub fn id(self) -> &'static str {
        if self == Draft::Four { "id" } else { "$id" }
    }

    /// Whether `items` may be a list.
    pub fn items_may_be_a_list(self) -> bool {
        self <= Draft::Unsaid
    }

    /// Whether `$ref` hides what is beside it.
    pub fn only_ref(self) -> bool {
        self <= Draft::Seven
    }
}

/// Editions that are read, for messages.
pub(super) const DRAFTS: &str = "draft-04, draft-06, draft-07, 2019-09, 2020-12";

/// Keywords that say which values are valid, and the first edition that has them.
pub(super) const ASSERTIONS: [(&str, Draft); 47] = [
    ("type", Draft::Four),
    ("enum", Draft::Four),
    ("const", Draft::Six),
    ("minimum", Draft::Four),
    ("maximum", Draft::Four),
    ("exclusiveMinimum", Draft::Four),
    ("exclusiveMaximum", Draft::Four),
    ("multipleOf", Draft::Four),
    ("minLength", Draft::Four),
    ("maxLength", Draft::Four),
    ("pattern", Draft::Four),
    ("format", Draft::Four),
    ("items", Draft::Four),
    ("additionalItems", Draft::Four),
    ("prefixItems", Draft::Unsaid),
    ("minItems", Draft::Four),
    ("maxItems", Draft::Four),
    ("uniqueItems", Draft::Four),
    ("contains", Draft::Six),
    ("minContains", Draft::Nineteen),
    ("maxContains", Draft::Nineteen),
    ("properties", Draft::Four),
    ("patternProperties", Draft::Four),
    ("additionalProperties", Draft::Four),
    ("required", Draft::Four),
    ("minProperties", Draft::Four),
    ("maxProperties", Draft::Four),
    ("propertyNames", Draft::Six),
    ("dependencies", Draft::Four),
    ("dependentRequired", Draft::Nineteen),
    ("dependentSchemas", Draft::Nineteen),
    ("allOf", Draft::Four),
    ("anyOf", Draft::Four),
    ("oneOf", Draft::Four),
    ("not", Draft::Four),
    ("if", Draft::Seven),
    ("then", Draft::Seven),
    ("else", Draft::Seven),
    ("unevaluatedItems", Draft::Nineteen),
    ("unevaluatedProperties", Draft::Nineteen),
    ("$ref", Draft::Four),
    ("$dynamicRef", Draft::Unsaid),
    ("$recursiveRef", Draft::Nineteen),
    ("$schema", Draft::Four),
    ("$defs", Draft::Nineteen),
    ("definitions", Draft::Four),
    ("$id", Draft::Six),
];

/// Words that people write for a keyword, and the keyword.
const SLIPS: [(&str, &str); 13] = [
    ("min", "minimum"),
    ("max", "maximum"),
    ("minLen", "minLength"),
    ("maxLen", "maxLength"),
    ("ref", "$ref"),
    ("def", "$defs"),
    ("defs", "$defs"),
    ("regex", "pattern"),
    // Words of draft-03.
    ("divisibleBy", "multipleOf"),
    ("disallow", "not"),
    ("extends", "allOf"),
    ("requires", "dependentRequired"),
    ("additionalProperty", "additionalProperties"),
];

/// Words of others that look like slips and are none.
const OTHERS: [&str; 2] = ["definition", "optional"];

/// The keyword that a word was meant to be, if it looks like a slip of one.
pub(super) fn slip_of(word: &str) -> Option<&'static str> {
    let marked = !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$');
    if marked || OTHERS.contains(&word) || ASSERTIONS.iter().any(|(known, _)| *known == word) {
        return None;
    }
    if let Some((_, meant)) = SLIPS.iter().find(|(slip, _)| *slip == word) {
        return Some(meant);
    }
    let chars: Vec<char> = word.chars().take(40).collect();
    let near = |known: &&(&'static str, Draft)| {
        let known = known.0;
        if known.eq_ignore_ascii_case(word) {
            return true;
        }
        let distance = distance(&chars, &known.chars().collect::<Vec<_>>());
        match known.trim_start_matches('$').len() {
            // Short words are near to many others: only letters that have changed places count.
            0..=5 => distance == 1 && sorted(&chars) == sorted(&known.chars().collect::<Vec<_>>()),
            6..=8 => distance == 1,
            _ => distance <= 2,
        }
    };
    ASSERTIONS.iter().find(near).map(|(known, _)| *known)
}

fn sorted(chars: &[char]) -> Vec<char> {
    let mut chars = chars.to_vec();
    chars.sort_unstable();
    chars
}

/// How many letters are missing, too many, wrong or have changed places with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1);
            best = best.min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if swap {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_words_of_others() {
        for (word, meant) in [
            ("maxLenght", "maxLength"),
            ("requried", "required"),
            ("min", "minimum"),
            ("Type", "type"),
            ("tpye", "type"),
            ("oneof", "oneOf"),
            ("definitons", "definitions"),
            ("additionalproperties", "additionalProperties"),
            ("addtionalProperties", "additionalProperties"),
            ("propertes", "properties"),
            ("enmu", "enum"),
            ("patern", "pattern"),
        ] {
            assert_eq!(slip_of(word), Some(meant), "{word}");
        }
        for word in [
            "title",
            "description",
            "default",
            "example",
            "examples",
            "nullable",
            "id",
            "note",
            "name",
            "label",
            "order",
            "propertyOrder",
            "preferredOrder",
            "_format",
            "links",
            "markdownDescription",
            "enumNames",
            "enumDescriptions",
            "discriminator",
            "xml",
            "deprecated",
            "version",
            "unit",
            "hint",
            "alias",
            "cli",
            "then_",
            "mode",
            "$comment",
            "$anchor",
            "contentEncoding",
            "readOnly",
            "formats_",
            "options",
            "instanceof",
            "tsType",
            "hidden",
            "item",
            "uniqueKeys",
            "meta:enum",
            "required_if",
            "dependsOn",
            "defaultSnippets",
            "source",
            "values",
            "dynamic",
        ] {
            assert_eq!(slip_of(word), None, "{word}");
        }
    }
}
