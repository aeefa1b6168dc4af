//! An embedding model behind the server and on the command line: MLC's golden of an encoder, with a tokenizer of a few
//! words.

use super::common::{Home, copy, data};
use super::server::Server;
use serde_json::{Value, json};

/// MLC's folder `bert/q0f32` as `m`, with WordPiece.
fn home() -> Home {
    let home = Home::new();
    copy(&data().join("arch/bert/q0f32"), &home.path("m"));
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sleep", "##s", "."];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |id: &str| json!({"id": id, "ids": [vocab[id]], "tokens": [id]});
    let added = words[..4].iter().enumerate().map(|(id, word)| {
        json!({"id": id, "content": word, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false})
    });
    let tokenizer = json!({
        "version": "1.0",
        // As all-MiniLM-L6-v2 has them: a text is neither cut nor filled up.
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    std::fs::write(home.path("m/tokenizer.json"), tokenizer.to_string()).unwrap();
    home
}

/// Adds sentence-transformers' word on the pooling.
fn pooled_by(home: &Home, mode: &str) {
    std::fs::create_dir_all(home.path("m/1_Pooling")).unwrap();
    std::fs::write(home.path("m/1_Pooling/config.json"), json!({ mode: true }).to_string()).unwrap();
}

fn golden() -> Value {
    let path = data().join("arch/bert/embedding-q0f32.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The vector that MLC's last state makes of a text: some rows' mean, at length 1.
fn expected(golden: &Value, text: usize, rows: std::ops::Range<usize>) -> Vec<f64> {
    let flat = |value: &Value| match value[0].is_array() {
        true => value.as_array().unwrap().iter().flat_map(numbers).collect(),
        false => numbers(value),
    };
    let all: Vec<f64> = match golden["output"][0].is_array() {
        true => golden["output"].as_array().unwrap().iter().flat_map(flat).collect(),
        false => numbers(&golden["output"]),
    };
    let row = |i: usize| &all[(text * 12 + i) * 64..][..64];
    let sum: Vec<f64> = (0..64).map(|d| rows.clone().map(|i| row(i)[d]).sum()).collect();
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    sum.iter().map(|x| x / length).collect()
}

fn near(found: &Value, expected: &[f64]) {
    let found = numbers(found);
    let cosine: f64 = found.iter().zip(expected).map(|(a, b)| a * b).sum();
    assert!(found.len() == 64 && (1.0 - cosine).abs() < 1e-5, "{cosine}");
}

#[test]
fn an_encoders_vectors_are_those_of_mlc() {
    let golden = golden();
    for (mode, rows) in
        [(None, 0..1), (Some("pooling_mode_mean_tokens"), 0..12), (Some("pooling_mode_lasttoken"), 11..12)]
    {
        let home = home();
        mode.into_iter().for_each(|mode| pooled_by(&home, mode));
        let server = Server::of(home, &["m"], &[]);
        let input = &golden["input_ids"];
        let both = server.post("/v1/embeddings", &json!({"model": "m", "input": input})).ok();
        for (i, ids) in input.as_array().unwrap().iter().enumerate() {
            near(&both["data"][i]["embedding"], &expected(&golden, i, rows.clone()));
            let alone = server.post("/v1/embeddings", &json!({"model": "m", "input": ids})).ok();
            assert_eq!(alone["data"][0]["embedding"], both["data"][i]["embedding"], "{mode:?}");
        }
    }
}

#[test]
fn texts_have_their_first_and_last_token() {
    let server = Server::of(home(), &["m", "--max-batch-tokens", "16", "--max-sequences", "4"], &[]);
    let ask = |input: Value| server.post("/v1/embeddings", &json!({"model": "m", "input": input}));
    let text = ask(json!("The cat sleeps.")).ok();
    assert_eq!(text["usage"]["prompt_tokens"], 7, "{text}");
    let tokens = ask(json!([2, 4, 5, 7, 8, 9, 3])).ok();
    assert_eq!(text["data"][0]["embedding"], tokens["data"][0]["embedding"]);
    // More than goes into one step, each whole.
    let many = ask(json!(vec!["The cat sleeps."; 20])).ok();
    for one in many["data"].as_array().unwrap() {
        assert_eq!(one["embedding"], text["data"][0]["embedding"]);
    }
    // The context is what goes into one step.
    let error = ask(json!("the ".repeat(15))).refused(400, Some("input"));
    assert!(error["message"].as_str().unwrap().contains("17 tokens"), "{error}");

    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "the cat"}]});
    let error = server.post("/v1/chat/completions", &chat).refused(400, None);
    assert_eq!(error["code"], "embedding_model");
    let error =
        server.post("/v1/completions", &json!({"model": "m", "prompt": "the cat"})).refused(400, None);
    assert!(error["message"].as_str().unwrap().contains("/v1/embeddings"), "{error}");
    let back = server.post("/detokenize", &json!({"model": "m", "tokens": [4, 5, 7, 8, 9]})).ok();
    assert_eq!(back["prompt"], " the cat sleeps.", "{back}");
}

#[test]
fn the_command_line_gives_the_servers_vectors() {
    let home = home();
    pooled_by(&home, "pooling_mode_mean_tokens");
    let texts = ["The cat sleeps.", "the dog", "the dog sleep the dog sleep"];
    let found = home.tessera(&["embed", "m", "--json", "--similarities", texts[0], texts[1], texts[2]]).ok();
    assert!(found.stderr.contains("1_Pooling/config.json says mean pooling"), "{}", found.stderr);
    let found = found.json();
    assert_eq!((&found["pooling"], &found["normalize"]), (&json!("mean"), &json!(true)));
    let similar = found["similarities"][1][2].as_f64().unwrap();
    assert!((found["similarities"][0][0].as_f64().unwrap() - 1.0).abs() < 1e-6 && similar < 0.9999);
    let lines = home.tessera(&["embed", "m", texts[1]]).ok().stdout;
    let line: Vec<f64> = lines.split_whitespace().map(|x| x.parse().unwrap()).collect();
    assert_eq!(line, numbers(&found["texts"][1]["vector"]), "{lines}");
    home.tessera(&["embed", "m", "the", &"the ".repeat(40)]).fails(&["text 2: ", "42 tokens", "holds 32"]);
    home.tessera(&["run", "m", "the cat"]).fails(&["m makes embeddings and no text", "tessera embed m TEXT"]);
    home.tessera(&["inspect", "m"]).ok().stdout.contains("mean pooling, normalised").then_some(()).unwrap();

    let server = Server::of(home, &["m"], &[]);
    let served = server.post("/v1/embeddings", &json!({"model": "m", "input": texts})).ok();
    for (i, text) in found["texts"].as_array().unwrap().iter().enumerate() {
        // The server writes all digits of the f32 as f64, the program those that matter.
        let short = |list: &Value| numbers(list).iter().map(|x| *x as f32).collect::<Vec<_>>();
        assert_eq!(short(&served["data"][i]["embedding"]), short(&text["vector"]));
    }
}

#[test]
fn a_pooling_that_is_not_here_is_refused_by_all() {
    let home = home();
    pooled_by(&home, "pooling_mode_max_tokens");
    let words = ["1_Pooling/config.json", "pooling by max_tokens is not supported"];
    for command in [
        &["embed", "m", "the"][..],
        &["verify", "m"],
        &["inspect", "m"],
        &["convert", "m", "to", "--quant", "q0f16"],
    ] {
        home.tessera(command).fails(&words);
    }
    std::fs::remove_dir_all(home.path("m/1_Pooling")).unwrap();
    let modules = json!([{"type": "sentence_transformers.models.Dense"}]);
    std::fs::write(home.path("m/modules.json"), modules.to_string()).unwrap();
    home.tessera(&["embed", "m", "the"]).fails(&["modules.json", "models.Dense"]);
}

/// What a conversion makes of the authors' word, and what it keeps.
#[test]
fn a_conversion_keeps_the_pooling() {
    let home = home();
    pooled_by(&home, "pooling_mode_mean_tokens");
    copy(&data().join("arch/bert/hf"), &home.path("hf"));
    std::fs::create_dir(home.path("hf/1_Pooling")).unwrap();
    std::fs::copy(home.path("m/1_Pooling/config.json"), home.path("hf/1_Pooling/config.json")).unwrap();
    std::fs::copy(home.path("m/tokenizer.json"), home.path("hf/tokenizer.json")).unwrap();
    home.tessera(&["convert", "hf", "a", "--quant", "q0f32"]).ok();
    home.tessera(&["convert", "m", "b", "--quant", "q0f16"]).ok();
    for folder in ["a", "b"] {
        let found = home.tessera(&["embed", folder, "the cat", "--json"]).ok().json();
        assert_eq!(found["pooling"], "mean", "{folder}");
    }
    let config: Value =
        serde_json::from_slice(&std::fs::read(home.path("a/mlc-chat-config.json")).unwrap()).unwrap();
    let expected = json!({"model_type": "encoder", "pooling_strategy": "mean", "normalize": true});
    assert_eq!((&config["model_task"], &config["embedding_metadata"]), (&json!("embedding"), &expected));
}
