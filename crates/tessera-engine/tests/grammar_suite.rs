//! The masks against JSON-Schema-Test-Suite, which lies beside the repository
//! (`../shared/data/json-schema-test-suite`) or where `JSON_SCHEMA_TEST_SUITE` says: whatever they let
//! through is valid.

mod grammar_support;

use grammar_support::{BYTES, accepts, orders, spaced};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tessera_engine::grammar::{GrammarConstraint, GrammarError, JsonSpacing};

fn suite() -> Option<PathBuf> {
    let root = match std::env::var_os("JSON_SCHEMA_TEST_SUITE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/json-schema-test-suite"),
    };
    if root.join("draft7").is_dir() {
        return Some(root);
    }
    eprintln!("SKIPPED: no JSON-Schema-Test-Suite at {}", root.display());
    None
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "json") {
            out.push(path);
        }
    }
}

/// Whether the masks of any spacing let the value through, in any way of writing it.
fn lets_through(styles: &[(JsonSpacing, GrammarConstraint)], value: &Value) -> bool {
    orders(value).iter().any(|value| {
        styles.iter().any(|(spacing, constraint)| match spacing {
            JsonSpacing::Compact => accepts(constraint, &value.to_string()),
            JsonSpacing::Spaced => accepts(constraint, &spaced(value)),
            JsonSpacing::Free => {
                let pretty = serde_json::to_string_pretty(value).unwrap();
                [value.to_string(), spaced(value), pretty].iter().any(|text| accepts(constraint, text))
            }
        })
    })
}

#[derive(Default)]
struct Count {
    schemas: usize,
    refused: usize,
    valid: usize,
    let_through: usize,
    invalid: usize,
    wrong: Vec<String>,
}

#[test]
fn whatever_the_masks_let_through_is_valid() {
    let Some(root) = suite() else { return };
    for (draft, uri) in [
        ("draft7", "http://json-schema.org/draft-07/schema#"),
        ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
    ] {
        let mut paths = Vec::new();
        files(&root.join(draft), &mut paths);
        assert!(paths.len() > 40, "{} files", paths.len());
        let mut count = Count::default();
        let mut refusals = std::collections::BTreeMap::<String, usize>::new();
        for path in paths {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let groups: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for group in groups {
                let mut schema = group["schema"].clone();
                if let Some(map) = schema.as_object_mut() {
                    map.entry("$schema").or_insert_with(|| uri.into());
                }
                count.schemas += 1;
                let styles: Result<Vec<_>, GrammarError> =
                    [JsonSpacing::Compact, JsonSpacing::Spaced, JsonSpacing::Free]
                        .into_iter()
                        .map(|spacing| Ok((spacing, BYTES.json_schema(&schema, spacing)?)))
                        .collect();
                let styles = match styles {
                    Ok(styles) => styles,
                    Err(error) => {
                        count.refused += 1;
                        if std::env::var_os("SHOW_MISSED").is_some() {
                            eprintln!("refused: {name}: {}: {error}", group["description"]);
                        }
                        let why = match &error {
                            GrammarError::Schema { keyword, .. } => keyword.clone(),
                            other => other.to_string(),
                        };
                        *refusals.entry(why).or_default() += 1;
                        continue;
                    }
                };
                for test in group["tests"].as_array().unwrap() {
                    let through = lets_through(&styles, &test["data"]);
                    if test["valid"] == true {
                        count.valid += 1;
                        count.let_through += usize::from(through);
                        if !through && std::env::var_os("SHOW_MISSED").is_some() {
                            eprintln!(
                                "missed: {name}: {} / {}: {}",
                                group["description"], test["description"], test["data"]
                            );
                        }
                    } else {
                        count.invalid += 1;
                        if through {
                            let what = format!(
                                "{name}: {} / {}: {}",
                                group["description"], test["description"], test["data"]
                            );
                            count.wrong.push(what);
                        }
                    }
                }
            }
        }
        eprintln!(
            "{draft}: {} schemas, {} refused; of the others {} of {} valid instances and {} of {} invalid ones let through",
            count.schemas,
            count.refused,
            count.let_through,
            count.valid,
            count.wrong.len(),
            count.invalid
        );
        for (why, n) in refusals {
            eprintln!("  refused {n:3}: {why}");
        }
        assert!(count.wrong.is_empty(), "invalid and let through:\n{}", count.wrong.join("\n"));
        // Masks that let nothing through would be right, too.
        assert!(count.let_through * 10 > count.valid * 8, "{} of {}", count.let_through, count.valid);
        assert!(count.refused * 3 < count.schemas * 2, "{} of {}", count.refused, count.schemas);
    }
}
