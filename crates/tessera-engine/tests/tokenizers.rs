//! Tokenizers of other people's packages against Hugging Face's libraries: `scripts/compare-tokenizers` fetches
//! both, writes the golden files with `make_package_golden.py` and runs this.

use serde::Deserialize;
use std::sync::Arc;
use tessera_engine::detokenize::{DetokenizeOptions, Detokenizer};
use tessera_engine::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Golden {
    folder: std::path::PathBuf,
    cases: Vec<Case>,
    streams: Vec<(Vec<u32>, String, String)>,
}

/// A text; its ids alone, with what the tokenizer puts around it, and blind to special tokens; what the second
/// are decoded to without special tokens and with them.
#[derive(Deserialize)]
struct Case(String, Vec<u32>, Vec<u32>, Vec<u32>, String, String);

fn streamed(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special: bool) -> String {
    let options = DetokenizeOptions { skip_special, ..DetokenizeOptions::default() };
    let mut stream = Detokenizer::new(tokenizer.clone(), options);
    let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
    text.push_str(&stream.finish(false));
    text
}

#[test]
#[ignore = "needs other people's tokenizers: scripts/compare-tokenizers fetches them and runs this"]
fn tokenizers_of_packages_agree_with_the_reference() {
    let folder =
        std::env::var("TESSERA_TOKENIZERS").expect("TESSERA_TOKENIZERS names a folder of golden files");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let (mut wrong, mut differ) = (Vec::new(), 0);
    for path in paths {
        let golden: Golden = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let tokenizer = Arc::new(Tokenizer::from_folder(&golden.folder).unwrap());
        let mut of_this = Vec::new();
        let mut check = |what: &str, of: &str, found: String, expected: String| {
            if found != expected {
                of_this.push(format!("{name}, {what} of {of:?}:\n  {found}\n  {expected}"));
            }
        };
        let ids = |ids: &[u32]| format!("{ids:?}");
        assert!(golden.cases.len() >= 2000 && golden.streams.len() >= 500, "{name}");
        for Case(text, plain, around, ordinary, shown, whole) in &golden.cases {
            check("ids", text, ids(&tokenizer.encode(text, false).unwrap()), ids(plain));
            check("ids with those around", text, ids(&tokenizer.encode(text, true).unwrap()), ids(around));
            check("ordinary ids", text, ids(&tokenizer.encode_ordinary(text).unwrap()), ids(ordinary));
            check("decoded ids", text, tokenizer.decode(around), shown.clone());
            check("streamed ids", text, streamed(&tokenizer, around, true), shown.clone());
            check(
                "ids streamed with special tokens",
                text,
                streamed(&tokenizer, around, false),
                whole.clone(),
            );
        }
        for (stream, shown, whole) in &golden.streams {
            let of = ids(stream);
            check("text", &of, tokenizer.decode(stream), shown.clone());
            check("stream", &of, streamed(&tokenizer, stream, true), shown.clone());
            check("stream with special tokens", &of, streamed(&tokenizer, stream, false), whole.clone());
        }
        println!(
            "{name}: {} texts, {} rows of ids, {} differences {:?}",
            golden.cases.len(),
            golden.streams.len(),
            of_this.len(),
            tokenizer.notes()
        );
        differ += of_this.len();
        wrong.extend(of_this.into_iter().take(10));
    }
    assert!(wrong.is_empty(), "{differ} differ, among them:\n{}", wrong.join("\n"));
}
