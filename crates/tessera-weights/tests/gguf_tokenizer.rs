//! Rebuilt tokenizers against sentencepiece and against ids worked out by hand, through HF's own
//! library. The golden data come from `make_gguf_golden.py`.

mod gguf_writer;

use gguf_writer::{File, V};
use serde_json::{Value, json};
use tessera_weights::bytes::Bytes;
use tessera_weights::gguf::{Gguf, GgufError, tokenizer_files};
use tokenizers::Tokenizer;

fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/gguf/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn files(bytes: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, GgufError> {
    tokenizer_files(&Gguf::parse(Bytes::from_vec(bytes))?)
}

fn get<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> &'a [u8] {
    &files.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode(text, special).unwrap().get_ids().to_vec()
}

#[track_caller]
fn refused(file: &File, parts: &[&str]) {
    let Err(error) = files(file.bytes()) else { panic!("accepted, expected an error with {parts:?}") };
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
}

/// Byte-level BPE over the letters a, b, c, 1, space and line feed.
fn bpe(pre: &'static str) -> File {
    let tokens = ["<s>", "</s>", "a", "b", "c", "1", "Ġ", "Ċ", "ab", "11", "[x]"];
    let mut file = File::empty();
    file.set("tokenizer.ggml.model", V::Str("gpt2"));
    file.set("tokenizer.ggml.pre", V::Str(pre));
    file.set("tokenizer.ggml.tokens", V::Strs(tokens.map(String::from).to_vec()));
    file.set("tokenizer.ggml.token_type", V::I32s(vec![3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4]));
    file.set("tokenizer.ggml.merges", V::Strs(vec!["a b".into(), "1 1".into()]));
    file.set("tokenizer.ggml.bos_token_id", V::U32(0));
    file.set("tokenizer.ggml.eos_token_id", V::U32(1));
    file
}

fn bpe_tokenizer(file: &File) -> Tokenizer {
    Tokenizer::from_bytes(get(&files(file.bytes()).unwrap(), "tokenizer.json")).unwrap()
}

#[test]
fn byte_level_bpe_gives_the_ids_of_the_file() {
    let files = files(data("tiny.gguf")).unwrap();
    let tokenizer = Tokenizer::from_bytes(get(&files, "tokenizer.json")).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), 269);
    // Tokens 0 to 2 are special, byte b is 3 + b, then the merges from 259 on.
    let byte = |b: u8| 3 + u32::from(b);
    assert_eq!(ids(&tokenizer, "hello world", true), [262, 267]);
    assert_eq!(ids(&tokenizer, "<|im_start|>hello<|im_end|>", true), [1, 262, 2]);
    assert_eq!(ids(&tokenizer, "12", true), [byte(b'1'), byte(b'2')]);
    assert_eq!(ids(&tokenizer, "   x", true), [268, byte(b' '), byte(b'x')]);
    let text = "naïve 🦙\r\n中文 <|im_start|> 3.14";
    let encoded = ids(&tokenizer, text, true);
    assert_eq!(tokenizer.decode(&encoded, false).unwrap(), text);

    let config: Value = serde_json::from_slice(get(&files, "tokenizer_config.json")).unwrap();
    assert_eq!(config["chat_template"], "{{ messages[0]['content'] }}");
    assert_eq!(config["bos_token"], "<|im_start|>");
    assert_eq!(config["eos_token"], "<|im_end|>");
    assert_eq!(config["add_bos_token"], false);
    assert_eq!(config["added_tokens_decoder"]["0"]["content"], "<|endoftext|>");
    assert_eq!(config["added_tokens_decoder"]["0"]["special"], true);
}

#[test]
fn each_pre_tokenizer_loads_and_cuts_as_it_should() {
    // What "11 ab" becomes shows whether digits are kept together.
    for (pre, want) in [
        ("default", vec![9, 6, 8]),
        ("gpt-2", vec![9, 6, 8]),
        ("smollm", vec![5, 5, 6, 8]),
        ("refact", vec![5, 5, 6, 8]),
        ("llama-bpe", vec![0, 9, 6, 8]),
        ("smaug-bpe", vec![9, 6, 8]),
        ("qwen2", vec![5, 5, 6, 8]),
        ("deepseek-r1-qwen", vec![5, 5, 6, 8]),
        ("seed-coder", vec![5, 5, 6, 8]),
        ("minicpm5", vec![9, 6, 8]),
        ("tekken", vec![0, 5, 5, 6, 8]),
        ("gpt-4o", vec![9, 6, 8]),
        ("deepseek-coder", vec![5, 5, 6, 8]),
        ("deepseek-v3", vec![9, 6, 8]),
    ] {
        let tokenizer = bpe_tokenizer(&bpe(pre));
        assert_eq!(ids(&tokenizer, "11 ab", true), want, "{pre}");
        assert_eq!(ids(&tokenizer, "a[x]b", false), [2, 10, 3], "{pre}: a user's token is one token");
        assert_eq!(
            tokenizer.decode(&ids(&tokenizer, "ab 1\n\n c", false), true).unwrap(),
            "ab 1\n\n c",
            "{pre}"
        );
    }
    refused(&bpe("mystery"), &["tokenizer.ggml.pre", "mystery", "smollm"]);
}

#[test]
fn bos_and_eos_are_added_as_the_file_says() {
    let mut file = bpe("gpt-2");
    file.set("tokenizer.ggml.add_bos_token", V::Bool(true));
    file.set("tokenizer.ggml.add_eos_token", V::Bool(true));
    assert_eq!(ids(&bpe_tokenizer(&file), "ab", true), [0, 8, 1]);
    assert_eq!(ids(&bpe_tokenizer(&file), "ab", false), [8]);
    file.remove("tokenizer.ggml.bos_token_id");
    refused(&file, &["tokenizer.ggml.bos_token_id", "missing"]);
}

#[test]
fn several_chat_templates_are_listed_by_name() {
    let mut file = bpe("gpt-2");
    file.set("tokenizer.chat_template", V::Str("A"));
    file.set("tokenizer.chat_template.tool_use", V::Str("B"));
    let files = files(file.bytes()).unwrap();
    let config: Value = serde_json::from_slice(get(&files, "tokenizer_config.json")).unwrap();
    let want = json!([{ "name": "default", "template": "A" }, { "name": "tool_use", "template": "B" }]);
    assert_eq!(config["chat_template"], want);
}

#[test]
fn sentencepiece_gives_the_same_ids() {
    let files = files(data("spm.gguf")).unwrap();
    let tokenizer = Tokenizer::from_bytes(get(&files, "tokenizer.json")).unwrap();
    let golden: Vec<Value> = serde_json::from_slice(&data("spm.json")).unwrap();
    for case in golden {
        let text = case["text"].as_str().unwrap();
        assert_eq!(json!(ids(&tokenizer, text, false)), case["ids"], "{text:?}");
        // The letter that stands for a space reads back as one, in SentencePiece too.
        let back = tokenizer.decode(&ids(&tokenizer, text, true), true).unwrap();
        assert_eq!(back, text.replace('\u{2581}', " "));
    }
    assert_eq!(ids(&tokenizer, "hello", true)[0], 1);
    let config: Value = serde_json::from_slice(get(&files, "tokenizer_config.json")).unwrap();
    assert_eq!((&config["bos_token"], &config["unk_token"]), (&json!("<s>"), &json!("<unk>")));
}

fn spm(scores: [f32; 7]) -> File {
    let tokens = ["<unk>", "a", "b", "c", "ab", "bc", "\u{2581}"];
    let mut file = File::empty();
    file.set("tokenizer.ggml.model", V::Str("llama"));
    file.set("tokenizer.ggml.tokens", V::Strs(tokens.map(String::from).to_vec()));
    file.set("tokenizer.ggml.token_type", V::I32s(vec![2, 1, 1, 1, 1, 1, 1]));
    file.set("tokenizer.ggml.scores", V::F32s(scores.to_vec()));
    file.set("tokenizer.ggml.add_bos_token", V::Bool(false));
    file
}

#[test]
fn equal_scores_are_left_to_sentencepiece() {
    // "abc" is a + bc or ab + c by score.
    for (scores, want) in
        [([0., 0., 0., 0., -2., -1., 0.], [6, 1, 5]), ([0., 0., 0., 0., -1., -2., 0.], [6, 4, 3])]
    {
        let files = files(spm(scores).bytes()).unwrap();
        let tokenizer = Tokenizer::from_bytes(get(&files, "tokenizer.json")).unwrap();
        assert_eq!(ids(&tokenizer, "abc", true), want);
    }
    // Runs of one character may share a score, as Llama 2's spaces do.
    let mut file = spm([0.; 7]);
    let tokens = ["<unk>", "a", "b", "aa", "aaa", "aaaa", "\u{2581}"];
    file.set("tokenizer.ggml.tokens", V::Strs(tokens.map(String::from).to_vec()));
    let files_of_runs = files(file.bytes()).unwrap();
    let tokenizer = Tokenizer::from_bytes(get(&files_of_runs, "tokenizer.json")).unwrap();
    assert_eq!(ids(&tokenizer, "aaaaaabaaa", true), [6, 5, 3, 2, 4]);
    // With equal scores SentencePiece takes the leftmost pair; no order of merges can say that.
    let files = files(spm([0.; 7]).bytes()).unwrap();
    let names: Vec<&str> = files.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["tokenizer.model", "tokenizer_config.json"]);
}

#[test]
fn broken_vocabularies_are_refused_by_name() {
    let change = |f: fn(&mut File)| {
        let mut file = bpe("gpt-2");
        f(&mut file);
        file
    };
    refused(&change(|f| f.remove("tokenizer.ggml.model")), &["tokenizer.ggml.model", "missing"]);
    refused(&change(|f| f.set("tokenizer.ggml.model", V::Str("rwkv"))), &["tokenizer.ggml.model", "rwkv"]);
    refused(&change(|f| f.remove("tokenizer.ggml.tokens")), &["tokenizer.ggml.tokens", "missing"]);
    refused(&change(|f| f.remove("tokenizer.ggml.merges")), &["tokenizer.ggml.merges", "missing"]);
    refused(&change(|f| f.set("tokenizer.ggml.merges", V::Strs(vec!["ab".into()]))), &["merge 0", "\"ab\""]);
    refused(&change(|f| f.set("tokenizer.ggml.merges", V::Strs(vec!["a c".into()]))), &["merge 0", "\"ac\""]);
    refused(
        &change(|f| f.set("tokenizer.ggml.token_type", V::I32s(vec![1]))),
        &["token_type", "array of 1", "11"],
    );
    refused(&change(|f| f.set("tokenizer.ggml.token_type", V::I32s(vec![7; 11]))), &["token 0", "type 7"]);
    refused(&change(|f| f.set("tokenizer.ggml.token_type", V::I32s(vec![-1; 11]))), &["token_type"]);
    refused(&change(|f| f.set("tokenizer.ggml.eos_token_id", V::U32(11))), &["eos_token_id", "11"]);
    refused(
        &change(|f| f.set("tokenizer.ggml.tokens", V::Strs(vec!["a".into(); 11]))),
        &["\"a\"", "two ids"],
    );
    refused(
        &change(|f| f.set("tokenizer.ggml.tokens", V::Strs(vec!["a".repeat(5000)]))),
        &["token 0", "4096"],
    );
    let mut file = spm([0.; 7]);
    file.remove("tokenizer.ggml.scores");
    refused(&file, &["tokenizer.ggml.scores", "missing"]);
    refused(&spm([f32::NAN; 7]), &["score of token 0", "NaN"]);
    let mut file = spm([0.; 7]);
    file.set("tokenizer.ggml.token_type", V::I32s(vec![1; 7]));
    refused(&file, &["type unknown", "0 tokens"]);
}
