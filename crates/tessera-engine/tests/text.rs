//! Tokenizers, streams and chat templates against what the reference implementations say. The golden
//! files are made by `make_tokenizer_golden.py` and `make_template_golden.py` beside this file.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use tessera_engine::detokenize::{DetokenizeOptions, Detokenizer};
use tessera_engine::template::{
    ChatTemplates, JinjaTemplate, Message, RenderOptions, TemplateChoice, TemplateError, agrees, differences,
    stop_token_ids,
};
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::chat_config::{ChatConfig, ConvTemplate, detect_conv_template};

const TINY: &[u8] = include_bytes!("data/tiny-tokenizer.json");

fn tiny() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
        let config = br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#;
        let lookup = |name: &str| match name {
            "tokenizer.json" => Some(TINY.to_vec()),
            "tokenizer_config.json" => Some(config.to_vec()),
            _ => None,
        };
        Arc::new(Tokenizer::from_files(lookup).unwrap())
    });
    TOKENIZER.clone()
}

/// The SentencePiece model is third-party data that lies beside the repository; `None` if it does not.
fn chinese() -> Option<Arc<Tokenizer>> {
    static TOKENIZER: LazyLock<Option<Arc<Tokenizer>>> = LazyLock::new(|| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let folder = root.join("shared/data/chinese-llama-2");
        if !folder.join("tokenizer.model").exists() {
            eprintln!("SKIPPED: no ../shared/data/chinese-llama-2/tokenizer.model");
            return None;
        }
        Some(Arc::new(Tokenizer::from_folder(&folder).unwrap()))
    });
    TOKENIZER.clone()
}

fn stream(tokenizer: &Arc<Tokenizer>, ids: &[u32], options: DetokenizeOptions) -> (String, Option<String>) {
    let mut out = Detokenizer::new(tokenizer.clone(), options);
    let mut text = String::new();
    for id in ids {
        let part = out.push(*id);
        text.push_str(&part);
    }
    text.push_str(&out.finish(false));
    (text, out.stopped().map(str::to_owned))
}

fn golden(text: &str) -> Vec<(String, Vec<u32>, String)> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn tokenizer_json_agrees_with_the_reference() {
    let tokenizer = tiny();
    assert_eq!((tokenizer.vocab_size(), tokenizer.active_vocab_size()), (259, 259));
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    let cases = golden(include_str!("data/tiny-tokenizer.golden.json"));
    assert!(cases.len() > 150);
    for (text, ids, decoded) in cases {
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), decoded, "{text:?}");
        assert_eq!(stream(&tokenizer, &ids, DetokenizeOptions::default()).0, decoded, "{text:?}");
    }
}

#[test]
#[ignore = "needs ../shared/data/chinese-llama-2, which is not ours to copy"]
fn sentencepiece_agrees_with_the_reference() {
    let tokenizer = chinese().expect("../shared/data/chinese-llama-2");
    assert_eq!(tokenizer.vocab_size(), 55296);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert!(tokenizer.strip_space_in_decode());
    let cases = golden(include_str!("data/chinese-llama-2.golden.json"));
    assert!(cases.len() > 150);
    let mut wrong = Vec::new();
    for (text, ids, decoded) in cases {
        let found = tokenizer.encode_ordinary(&text).unwrap();
        if found != ids {
            wrong.push((text.clone(), found, ids.clone()));
        }
        // The reference shows U+2047 for U+FFFD's place; there is none in these texts.
        assert_eq!(tokenizer.decode(&ids), decoded, "{text:?}");
        assert_eq!(stream(&tokenizer, &ids, DetokenizeOptions::default()).0, decoded, "{text:?}");
    }
    assert!(wrong.is_empty(), "{} differ: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn special_tokens_in_a_text_are_recognised_or_not() {
    let tokenizer = tiny();
    assert_eq!(tokenizer.encode("<s>a</s>", false).unwrap(), [1, tokenizer.id_of("a").unwrap(), 2]);
    let ordinary = tokenizer.encode_ordinary("<s>a</s>").unwrap();
    assert_eq!(ordinary.len(), 8);
    assert!(ordinary.iter().all(|id| !tokenizer.is_special(*id)));
    let Some(tokenizer) = chinese() else { return };
    let ids = tokenizer.encode("<s>[INST] Hi [/INST]</s>", true).unwrap();
    assert_eq!((&ids[..2], *ids.last().unwrap()), (&[1, 1][..], 2));
    // A text after a special token is tokenised like one at the beginning.
    let inner = tokenizer.encode_ordinary("[INST] Hi [/INST]").unwrap();
    assert_eq!(ids[2..ids.len() - 1], inner);
    assert!(!tokenizer.encode_ordinary("<s>").unwrap().contains(&1));
}

#[test]
fn token_bytes_are_raw() {
    let tokenizer = tiny();
    let mut seen = [false; 256];
    for id in 3..259 {
        let [byte] = tokenizer.token_bytes(id).unwrap() else { panic!("one byte each") };
        seen[usize::from(*byte)] = true;
    }
    assert!(seen.iter().all(|s| *s));
    assert_eq!(tokenizer.token_bytes(259), None);
    assert_eq!(tokenizer.token_text(1), Some("<s>"));
    let Some(tokenizer) = chinese() else { return };
    for byte in 0..=255u8 {
        let id = tokenizer.id_of(&format!("<0x{byte:02X}>")).unwrap();
        assert_eq!(tokenizer.token_bytes(id).unwrap(), [byte]);
    }
    let id = tokenizer.id_of("▁the").unwrap();
    assert_eq!(tokenizer.token_bytes(id).unwrap(), b" the");
}

#[test]
fn several_megabytes_do_not_hang() {
    let text =
        ["a".repeat(2_000_000), " ".repeat(2_000_000), "字".repeat(1_000_000), "a b\n字 ".repeat(150_000)];
    for tokenizer in [Some(tiny()), chinese()].into_iter().flatten() {
        for text in &text {
            let start = Instant::now();
            let ids = tokenizer.encode(text, false).unwrap();
            assert!(start.elapsed().as_secs() < 60, "{tokenizer:?}: {:?}", start.elapsed());
            assert_eq!(tokenizer.decode(&ids).len(), text.len(), "{tokenizer:?}");
        }
    }
}

#[test]
fn byte_level_files_are_read_without_tokenizer_json() {
    let json: Value = serde_json::from_slice(TINY).unwrap();
    let mut vocab = json["model"]["vocab"].as_object().unwrap().clone();
    vocab.insert("ab".into(), json!(259));
    vocab.insert("Ġab".into(), json!(260));
    let lookup = |name: &str| match name {
        "vocab.json" => Some(serde_json::to_vec(&vocab).unwrap()),
        "merges.txt" => Some(b"#version: 0.2\na b\n\xc4\xa0 ab\n".to_vec()),
        "added_tokens.json" => Some(br#"{"<|x|>": 261}"#.to_vec()),
        _ => None,
    };
    let tokenizer = Tokenizer::from_files(lookup).unwrap();
    assert_eq!(tokenizer.encode("ab ab<|x|>", false).unwrap(), [259, 260, 261]);
    assert_eq!(tokenizer.decode(&[259, 260, 261]), "ab ab<|x|>");
    assert!(tokenizer.notes()[0].contains("GPT-2"), "{:?}", tokenizer.notes());
}

#[test]
fn defects_are_errors() {
    let open = |name: &'static str, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        Tokenizer::from_files(move |n| (n == name).then(|| bytes.clone()))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let missing = Tokenizer::from_files(|_| None).unwrap_err().to_string();
    for name in ["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"] {
        assert!(missing.contains(name), "{missing}");
    }
    assert!(open("tokenizer.json", b"{").contains("tokenizer.json"));
    assert!(open("tokenizer.json", b"{}").contains("tokenizer.json"));
    assert!(open("tokenizer.model", b"").contains("tokenizer.model"));
    assert!(open("tokenizer.model", b"\x0a\x05hello, this is no model").contains("tokenizer.model"));
    assert!(open("tokenizer_config.json", b"nonsense").contains("tokenizer_config.json"));
    let mut json: Value = serde_json::from_slice(TINY).unwrap();
    json["model"]["vocab"]["!"] = json!(4_000_000_000u32);
    assert!(open("tokenizer.json", json.to_string().as_bytes()).contains("4000000000"));
    json = serde_json::from_slice(TINY).unwrap();
    for (decoder, named) in [
        (json!({"type": "BPEDecoder", "suffix": "</w>"}), "BPEDecoder"),
        (json!({"type": "WordPiece", "prefix": "@@", "cleanup": true}), "WordPiece"),
    ] {
        json["decoder"] = decoder;
        assert!(open("tokenizer.json", json.to_string().as_bytes()).contains(named));
    }
}

/// Before: a table of 900 MB with a place for each id.
#[test]
fn an_id_far_beyond_the_others_is_refused_by_name() {
    // A piece for the unknown, one word, and its spelling in protobuf.
    let piece = |text: &str, kind: u8| {
        let mut out = vec![10, text.len() as u8];
        out.extend(text.as_bytes());
        out.extend([21, 0, 0, 0, 0, 24, kind]);
        [vec![10, out.len() as u8], out].concat()
    };
    let model = [piece("<unk>", 2), piece("ab", 1)].concat();
    let open = |id: u32| {
        Tokenizer::from_files(|name| match name {
            "tokenizer.model" => Some(model.clone()),
            "added_tokens.json" => Some(json!({"<|x|>": id}).to_string().into_bytes()),
            _ => None,
        })
    };
    assert_eq!(open(70_000).unwrap().vocab_size(), 70_001);
    let error = open(16_777_215).unwrap_err().to_string();
    for part in ["<|x|>", "16777215", "262147", "beside"] {
        assert!(error.contains(part), "{error}");
    }
    // The same of a vocabulary's own token.
    let mut json: Value = serde_json::from_slice(TINY).unwrap();
    json["model"]["vocab"]["<|y|>"] = json!(16_777_215);
    let json = json.to_string();
    let error = Tokenizer::from_files(|n| (n == "tokenizer.json").then(|| json.clone().into_bytes()));
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("<|y|>") && error.contains("16777215"), "{error}");
}

#[test]
fn a_saved_length_limit_does_not_cut_prompts() {
    let mut json: Value = serde_json::from_slice(TINY).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    let text = json.to_string();
    let tokenizer =
        Tokenizer::from_files(|n| (n == "tokenizer.json").then(|| text.as_bytes().to_vec())).unwrap();
    assert_eq!(tokenizer.encode("abcdef", true).unwrap().len(), 6);
}

/// As transformers 4 has it: some classes make the post-processor anew, all others leave it to the file.
#[test]
fn a_class_that_adds_the_first_token_overrides_the_file() {
    let mut json: Value = serde_json::from_slice(TINY).unwrap();
    let template = json!({
        "type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    });
    for (class, add, in_file, around) in [
        ("LlamaTokenizerFast", json!({}), false, (true, false)),
        ("LlamaTokenizerFast", json!({"add_bos_token": false}), true, (false, false)),
        ("GemmaTokenizer", json!({"add_bos_token": true, "add_eos_token": true}), false, (true, true)),
        ("GPTNeoXTokenizerFast", json!({}), true, (false, false)),
        ("LlamaTokenizerFast", json!({"bos_token": null, "add_bos_token": true}), false, (false, false)),
        ("PreTrainedTokenizerFast", json!({"add_bos_token": true}), false, (false, false)),
        ("PreTrainedTokenizerFast", json!({"add_bos_token": false}), true, (true, false)),
    ] {
        json["post_processor"] = if in_file { template.clone() } else { Value::Null };
        let mut config = json!({"tokenizer_class": class, "bos_token": "<s>", "eos_token": "</s>"});
        config.as_object_mut().unwrap().extend(add.as_object().unwrap().clone());
        let lookup = |name: &str| match name {
            "tokenizer.json" => Some(json.to_string().into_bytes()),
            "tokenizer_config.json" => Some(config.to_string().into_bytes()),
            _ => None,
        };
        let tokenizer = Tokenizer::from_files(lookup).unwrap();
        let plain = tokenizer.encode("a", false).unwrap();
        let expected = [&[1][..usize::from(around.0)], &plain, &[2][..usize::from(around.1)]].concat();
        assert_eq!(tokenizer.encode("a", true).unwrap(), expected, "{config} {in_file}");
    }
}

#[test]
fn a_stream_stops_at_text_and_at_hidden_tokens() {
    let tokenizer = tiny();
    let ids = tokenizer.encode("Hello wörld. User: no", false).unwrap();
    let stop = |stop: &str| DetokenizeOptions { stop: vec![stop.into()], ..DetokenizeOptions::default() };
    assert_eq!(stream(&tokenizer, &ids, stop("User:")), ("Hello wörld. ".into(), Some("User:".into())));
    let ids = tokenizer.encode("Hi</s>more", false).unwrap();
    assert_eq!(stream(&tokenizer, &ids, stop("</s>")), ("Hi".into(), Some("</s>".into())));
    assert_eq!(stream(&tokenizer, &ids, stop("")), ("Himore".into(), None));
    let shown = DetokenizeOptions { skip_special: false, ..DetokenizeOptions::default() };
    assert_eq!(stream(&tokenizer, &ids, shown).0, "Hi</s>more");
    assert_eq!(stream(&tokenizer, &[9999], DetokenizeOptions::default()).0, "\u{fffd}");
}

#[test]
#[ignore = "needs ../shared/data/chinese-llama-2, which is not ours to copy"]
fn the_first_space_belongs_to_the_text_when_it_goes_on() {
    let tokenizer = chinese().expect("../shared/data/chinese-llama-2");
    let ids = tokenizer.encode("the end", false).unwrap();
    assert_eq!(stream(&tokenizer, &ids, DetokenizeOptions::default()).0, "the end");
    let on = DetokenizeOptions { strip_leading_space: Some(false), ..DetokenizeOptions::default() };
    assert_eq!(stream(&tokenizer, &ids, on).0, " the end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_text_comes_back_whole(text in "\\PC{0,40}", stop in "\\PC{1,3}") {
        for tokenizer in [Some(tiny()), chinese()].into_iter().flatten() {
            // Byte for byte, one token at a time, for any text; the marker of a space is a space.
            let text = text.replace('▁', "_");
            let ids = tokenizer.encode_ordinary(&text).unwrap();
            let (out, _) = stream(&tokenizer, &ids, DetokenizeOptions::default());
            prop_assert_eq!(&out, &text);
            let options = DetokenizeOptions { stop: vec![stop.clone()], ..DetokenizeOptions::default() };
            let expected = text.split(stop.as_str()).next().unwrap();
            prop_assert_eq!(stream(&tokenizer, &ids, options).0, expected);
        }
    }

    #[test]
    fn any_ids_are_decoded(ids in prop::collection::vec(0u32..56_000, 0..40)) {
        for tokenizer in [Some(tiny()), chinese()].into_iter().flatten() {
            let (out, _) = stream(&tokenizer, &ids, DetokenizeOptions::default());
            prop_assert_eq!(out, tokenizer.decode(&ids));
        }
    }
}

#[test]
fn hostile_templates_end() {
    let user = [Message::new("user", "x")];
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ 'a'.replace('', 'b' * 100000).replace('', 'c' * 100000) }}",
        "{{ strftime_now('%Y') }}",
        "{{ messages.foo.bar }}",
        "{{ open('/etc/passwd') }}",
        "{% include 'x' %}",
        "{{ 1 // 0 }}",
    ] {
        let start = Instant::now();
        let template = JinjaTemplate::new(source, "", "").unwrap();
        let error = template.render(&user, &RenderOptions::answer());
        assert!(matches!(error, Err(TemplateError::Jinja { .. })), "{source}: {error:?}");
        assert!(start.elapsed().as_secs() < 20, "{source}: {:?}", start.elapsed());
    }
    for source in [
        "{% if %}",
        "{{",
        "{% for x in y %}",
        &"(".repeat(5000),
        &"{{ -".repeat(20000),
        &"{% if 1 %}".repeat(20000),
    ] {
        if let Err(e) = JinjaTemplate::new(source, "", "") {
            assert!(e.to_string().contains("chat_template"), "{e}");
        }
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(JinjaTemplate::new(&deep, "", "").is_err());
}

#[test]
fn long_conversations_have_fuel_enough() {
    let golden: Value = serde_json::from_str(include_str!("data/templates.golden.json")).unwrap();
    let template = JinjaTemplate::new(golden["templates"]["qwen-tools"].as_str().unwrap(), "", "").unwrap();
    let mut messages = Vec::new();
    for i in 0..500 {
        messages.push(Message::new("user", format!("{i} {}", "word ".repeat(800))));
        messages
            .push(Message::new("assistant", format!("<think>\nx\n</think>\n\n{}", "answer ".repeat(600))));
    }
    messages.push(Message::new("user", "last"));
    let text = template.render(&messages, &RenderOptions::answer()).unwrap();
    assert!(text.len() > 4_000_000 && text.ends_with("last<|im_end|>\n<|im_start|>assistant\n"));
}

#[test]
fn generation_marks_leave_no_text() {
    let source = "{% for m in messages %}{%- generation -%} {{ m.content }} {% endgeneration %}{% endfor %}";
    let template = JinjaTemplate::new(source, "", "").unwrap();
    assert_eq!(template.render(&[Message::new("user", "x")], &RenderOptions::default()).unwrap(), "x ");
}

#[test]
fn templates_are_found_where_folders_keep_them() {
    let render = |files: &[(&str, String)], tools: bool| {
        let lookup =
            |name: &str| files.iter().find(|(n, _)| *n == name).map(|(_, text)| text.as_bytes().to_vec());
        let template = JinjaTemplate::from_files(lookup).unwrap().unwrap();
        let options = RenderOptions { tools: tools.then(|| json!([{}])), ..RenderOptions::default() };
        template.render(&[Message::new("user", "x")], &options).unwrap()
    };
    let string = (
        "tokenizer_config.json",
        json!({"chat_template": "{{ bos_token }}A", "bos_token": {"content": "B"}}).to_string(),
    );
    assert_eq!(render(std::slice::from_ref(&string), false), "BA");
    let own = ("chat_template.json", json!({"chat_template": "J"}).to_string());
    assert_eq!(render(&[string.clone(), own.clone()], false), "J");
    assert_eq!(render(&[string, own, ("chat_template.jinja", "F{{ bos_token }}".into())], false), "FB");
    let list = json!({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]});
    let list = [("tokenizer_config.json", list.to_string())];
    assert_eq!((render(&list, false).as_str(), render(&list, true).as_str()), ("D", "T"));
    assert!(JinjaTemplate::from_files(|_| None).unwrap().is_none());
    let broken = |n: &str| (n == "tokenizer_config.json").then(|| br#"{"chat_template": 3}"#.to_vec());
    assert!(JinjaTemplate::from_files(broken).unwrap_err().to_string().contains("tokenizer_config.json"));
}

#[test]
fn a_folder_with_both_templates_uses_mlcs_unless_told_otherwise() {
    let config = ChatConfig::parse(br#"{"conv_template": "chatml", "eos_token_id": [7, 2]}"#).unwrap();
    let files = |n: &str| (n == "chat_template.jinja").then(|| b"{{ messages[0].content }}".to_vec());
    let choose = |config: Option<&ChatConfig>, choice| {
        ChatTemplates::from_files(config, files).unwrap().choose(choice)
    };
    let auto = choose(Some(&config), TemplateChoice::Auto).unwrap();
    assert_eq!(auto.name(), "chatml");
    assert_eq!(stop_token_ids(&auto, Some(&config), Some(&json!({"eos_token_id": 9})), &tiny()), [2, 7, 9]);
    assert_eq!(auto.stop_strings(), ["<|im_end|>"]);
    assert!(choose(Some(&config), TemplateChoice::Jinja).unwrap().name().contains("Jinja"));
    assert!(choose(None, TemplateChoice::Auto).unwrap().name().contains("Jinja"));
    assert!(choose(None, TemplateChoice::Conv).is_err());
}

#[test]
fn prompts_keep_their_prefix_ids() {
    let tokenizer = tiny();
    let templates = ChatTemplates { conv: Some(ConvTemplate::builtin("llama-2").unwrap()), jinja: None };
    let template = templates.choose(TemplateChoice::Auto).unwrap();
    let turns = [Message::new("user", "a"), Message::new("assistant", "b"), Message::new("user", "c")];
    let ids = template.render(&turns, &RenderOptions::answer()).unwrap().encode(&tokenizer).unwrap();
    assert_eq!(ids[0], 1);
    // The separators' special tokens are recognised: " </s>" and then "<s>[INST]".
    assert_eq!(ids.iter().filter(|id| **id < 3).copied().collect::<Vec<_>>(), [1, 2, 1]);
}

#[test]
fn detected_templates_agree_with_their_originals() {
    let golden: Value = serde_json::from_str(include_str!("data/templates.golden.json")).unwrap();
    let ids = ["<s>", "</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"];
    let id_of = |text: &str| ids.iter().position(|t| *t == text).map(|i| i as u32);
    let text_of = |id: u32| ids.get(id as usize).map(|t| (*t).to_owned());
    let without = ["one question", "three turns"];
    let with = ["one question after a system message", "three turns after a system message"];
    // An MLC template cannot leave its frame out: those differ where nobody gives a system message.
    for (name, detected, expected) in [
        ("chatml", "chatml", vec![]),
        ("llama-3", "llama-3", without.to_vec()),
        ("llama-2", "llama-2", without.to_vec()),
        ("phi-3", "phi-3", without.to_vec()),
        ("zephyr", "tinyllama_v1_0", without.to_vec()),
        ("gemma", "gemma_instruction", vec![]),
        ("mistral", "mistral_default", with.to_vec()),
    ] {
        let source = golden["templates"][name].as_str().unwrap();
        let found = detect_conv_template(source, id_of, Some("<s>"), Some("</s>")).unwrap();
        assert_eq!(found.template.name.as_deref(), Some(detected));
        let jinja = JinjaTemplate::new(source, "<s>", "</s>").unwrap();
        let difference = differences(&found.template, &jinja, text_of);
        let differing: Vec<&str> = difference.iter().map(|d| d.conversation).collect();
        assert_eq!(differing, expected, "{name}: {difference:#?}");
        assert_eq!(agrees(&found.template, &jinja, text_of).is_ok(), expected.is_empty());
        assert_eq!(found.warnings.is_empty(), expected.is_empty(), "{name}: {:?}", found.warnings);
        let stops = &found.template.stop_token_ids;
        assert!(stops.contains(&1) && stops.windows(2).all(|w| w[0] < w[1]), "{name}: {stops:?}");
    }
}

#[test]
fn a_first_token_that_marks_turns_is_not_put_in_front() {
    // SmolLM2 names `<|im_start|>` as its first token; its template has no other one.
    let golden: Value = serde_json::from_str(include_str!("data/templates.golden.json")).unwrap();
    let source = golden["templates"]["chatml"].as_str().unwrap();
    let ids = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let id_of = |text: &str| ids.iter().position(|t| *t == text).map(|i| i as u32);
    let found = detect_conv_template(source, id_of, Some("<|im_start|>"), Some("<|im_end|>")).unwrap();
    let jinja = JinjaTemplate::new(source, "<|im_start|>", "<|im_end|>").unwrap();
    agrees(&found.template, &jinja, |id| ids.get(id as usize).map(|t| (*t).to_owned())).unwrap();
    assert_eq!(found.template.stop_token_ids, [0, 2]);
}
