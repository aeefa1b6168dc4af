//! `/v1/completions`, `/v1/embeddings`, `/tokenize`, `/detokenize`, `/v1/models`.

use super::server::{Server, events, home};
use serde_json::{Value, json};

fn ask(server: &Server, extra: Value) -> Value {
    let mut body = json!({"model": "m", "prompt": "abc", "max_tokens": 6, "temperature": 0});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post("/v1/completions", &body).ok()
}

fn text(reply: &Value, i: usize) -> &str {
    reply["choices"][i]["text"].as_str().unwrap()
}

#[test]
fn a_prompt_is_continued_whatever_its_form() {
    let server = Server::start(&[]);
    let plain = ask(&server, json!({}));
    assert_eq!(
        (&plain["object"], &plain["choices"][0]["logprobs"]),
        (&json!("text_completion"), &Value::Null)
    );
    let tokens = server.post("/tokenize", &json!({"model": "m", "prompt": "abc"})).ok();
    assert_eq!(tokens["count"], plain["usage"]["prompt_tokens"]);
    let tokens = &tokens["tokens"];
    for prompt in [json!(["abc"]), tokens.clone(), json!([tokens])] {
        assert_eq!(text(&ask(&server, json!({"prompt": prompt})), 0), text(&plain, 0));
    }
    let other = ask(&server, json!({"prompt": "xyz!"}));
    let both = ask(&server, json!({"prompt": ["abc", "xyz!"], "n": 2, "best_of": 2}));
    let texts: Vec<&str> = (0..4).map(|i| text(&both, i)).collect();
    assert_eq!(texts, [text(&plain, 0), text(&plain, 0), text(&other, 0), text(&other, 0)]);
    let prompts =
        plain["usage"]["prompt_tokens"].as_u64().unwrap() + other["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(both["usage"]["prompt_tokens"], prompts, "each prompt counts once");
    let default =
        server.post("/v1/completions", &json!({"model": "m", "prompt": "abc", "ignore_eos": true})).ok();
    assert_eq!(default["usage"]["completion_tokens"], 16);
}

#[test]
fn echo_and_logprobs_cover_the_prompt() {
    let server = Server::start(&[]);
    let plain = ask(&server, json!({}));
    let echo = ask(&server, json!({"echo": true}));
    assert_eq!(text(&echo, 0), format!("abc{}", text(&plain, 0)));
    let full = ask(&server, json!({"echo": true, "logprobs": 3}));
    let lists = &full["choices"][0]["logprobs"];
    let list = |name: &str| lists[name].as_array().unwrap().clone();
    let n = full["usage"]["total_tokens"].as_u64().unwrap() as usize;
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(name).len(), n, "{name}");
    }
    assert!(list("token_logprobs")[0].is_null());
    assert!(list("token_logprobs")[1..].iter().all(|l| l.as_f64().is_some_and(|l| l <= 0.0)));
    assert!(list("top_logprobs")[1..].iter().all(|t| (1..=3).contains(&t.as_object().unwrap().len())));
    // Reading the prompt only: what lm-eval's scoring asks for.
    let scored = ask(&server, json!({"echo": true, "logprobs": 3, "max_tokens": 0}));
    let prompt = scored["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!((text(&scored, 0), &scored["usage"]["completion_tokens"]), ("abc", &json!(0)));
    assert_eq!(
        scored["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap()[..],
        list("token_logprobs")[..prompt]
    );
    // The same after the prompt is in the cache, and in a stream.
    let again = ask(&server, json!({"echo": true, "logprobs": 3}));
    assert_eq!(again["choices"], full["choices"]);
    let body = json!({"model": "m", "prompt": "abc", "max_tokens": 6, "temperature": 0, "echo": true, "logprobs": 3, "stream": true});
    let (chunks, done) = server.stream("/v1/completions", &body);
    assert!(done);
    let join = |name: &str| -> Vec<Value> {
        let lists = chunks.iter().filter_map(|c| c["choices"][0]["logprobs"][name].as_array());
        lists.flatten().cloned().collect()
    };
    let streamed: String = chunks.iter().map(|c| c["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(streamed, text(&full, 0));
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(join(name), list(name), "{name}");
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let server = Server::of(home(100), &["m"], &[]);
    for (extra, param) in [
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": 7}), "prompt"),
        (json!({"prompt": ["a", 7]}), "prompt[1]"),
        (json!({"prompt": [1, "a"]}), "prompt[1]"),
        (json!({"prompt": [1, 259]}), "prompt[1]"),
        (json!({"prompt": [-1]}), "prompt[0]"),
        (json!({"prompt": ["a", ""]}), "prompt[1]"),
        (json!({"prompt": vec!["a"; 129]}), "prompt"),
        (json!({"prompt": "x".repeat(200)}), "prompt"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"logprobs": 21}), "logprobs"),
    ] {
        let mut body = json!({"model": "m", "prompt": "abc"});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        server.post("/v1/completions", &body).refused(400, Some(param));
    }
}

#[test]
fn embeddings_are_vectors_of_length_one() {
    let server = Server::start(&[]);
    let ask = |body: Value| server.post("/v1/embeddings", &body);
    let plain = ask(json!({"model": "m", "input": "abc"})).ok();
    assert_eq!((&plain["object"], &plain["data"][0]["object"]), (&json!("list"), &json!("embedding")));
    let vector = |reply: &Value, i: usize| -> Vec<f64> {
        let list = reply["data"][i]["embedding"].as_array().unwrap();
        list.iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let abc = vector(&plain, 0);
    assert_eq!(abc.len(), 64);
    assert!((abc.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!(plain["usage"]["prompt_tokens"], plain["usage"]["total_tokens"]);
    let several = ask(json!({"model": "m", "input": ["xyz", "abc", "a longer text"], "dimensions": 64})).ok();
    assert_eq!(several["data"].as_array().unwrap().len(), 3);
    assert_eq!(vector(&several, 1), abc, "the company makes no difference");
    assert_ne!(vector(&several, 0), abc);
    let base64 = ask(json!({"model": "m", "input": "abc", "encoding_format": "base64"})).ok();
    let text = base64["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(text.len(), (64usize * 4).div_ceil(3) * 4);
    // The first value, decoded by hand.
    let digit = |c: u8| {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".find(c as char).unwrap() as u32
    };
    let bits = text.bytes().take(6).fold(0u64, |bits, c| bits << 6 | u64::from(digit(c)));
    let first = f32::from_le_bytes(((bits >> 4) as u32).to_be_bytes());
    assert!((f64::from(first) - abc[0]).abs() < 1e-7, "{first} {}", abc[0]);
    for (body, param) in [
        (json!({"model": "m", "input": "abc", "dimensions": 32}), "dimensions"),
        (json!({"model": "m", "input": ""}), "input"),
        (json!({"model": "m", "input": ["a", ""]}), "input[1]"),
        (json!({"model": "m", "input": "x".repeat(3000)}), "input"),
        (json!({"model": "m", "input": "x", "encoding_format": "hex"}), "encoding_format"),
    ] {
        ask(body).refused(400, Some(param));
    }
    // Longer than the queue and the engine's seats together.
    let many = ask(json!({"model": "m", "input": vec!["abc"; 200]})).ok();
    assert_eq!(vector(&many, 199), abc);
}

#[test]
fn text_and_tokens_are_each_others_inverse() {
    let server = Server::start(&[]);
    let text = "Grüße </s> 😀";
    let tokens =
        server.post("/tokenize", &json!({"model": "m", "prompt": text, "return_token_strs": true})).ok();
    assert_eq!(tokens["max_model_len"], 2048);
    assert_eq!(tokens["token_strs"].as_array().unwrap().len(), tokens["tokens"].as_array().unwrap().len());
    let back = server.post("/detokenize", &json!({"model": "m", "tokens": tokens["tokens"]})).ok();
    assert_eq!(back["prompt"], text);
    server.post("/detokenize", &json!({"model": "m", "tokens": [1, 300]})).refused(400, Some("tokens[1]"));
    server.post("/tokenize", &json!({"model": "m"})).refused(400, Some("prompt"));
    let mixed = json!({"model": "m", "prompt": "a", "add_generation_prompt": true});
    server.post("/tokenize", &mixed).refused(400, Some("add_generation_prompt"));
}

#[test]
fn models_are_listed_and_an_unknown_one_is_told_the_known() {
    let home = home(256);
    super::common::copy(&home.path("m"), &home.path("other"));
    let server = Server::of(home, &["m", "org/b=other"], &[]);
    let list = server.get("/v1/models").ok();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!((&list["object"], ids), (&json!("list"), vec!["m", "org/b"]));
    let one = server.get("/v1/models/m").ok();
    assert_eq!(
        (&one["object"], &one["max_model_len"], &one["loaded"]),
        (&json!("model"), &json!(256), &json!(true))
    );
    // The second is loaded when it is asked for.
    assert_eq!(server.get("/v1/models/org/b").ok()["loaded"], false);
    server.post("/v1/completions", &json!({"model": "org/b", "prompt": "a", "max_tokens": 1})).ok();
    assert_eq!(server.get("/v1/models/org/b").ok()["loaded"], true);
    for reply in [
        server.get("/v1/models/x"),
        server.post("/v1/completions", &json!({"model": "x", "prompt": "a"})),
        server.post("/v1/embeddings", &json!({"model": "x", "input": "a"})),
        server.post("/tokenize", &json!({"model": "x", "prompt": "a"})),
    ] {
        let error = reply.refused(404, Some("model"));
        assert_eq!(error["code"], "model_not_found");
        assert!(error["message"].as_str().unwrap().contains("m, org/b"), "{error}");
    }
}

#[test]
fn a_stream_of_several_prompts_tells_them_apart() {
    let server = Server::start(&[]);
    let body = json!({"model": "m", "prompt": ["abc", "xyz!"], "max_tokens": 6, "temperature": 0});
    let whole = server.post("/v1/completions", &body).ok();
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let reply = server.post("/v1/completions", &streamed);
    let (chunks, done) = events(&reply.body);
    assert!(done);
    for i in 0..2 {
        let own = chunks.iter().filter(|c| c["choices"][0]["index"] == i);
        let streamed: String = own.map(|c| c["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(streamed, text(&whole, i));
    }
}
