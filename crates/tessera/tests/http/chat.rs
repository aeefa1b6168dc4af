//! `/v1/chat/completions`: what an answer looks like, and that each setting does what it says.

use super::server::{Server, edit, home, jinja};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

fn request(extra: Value) -> Value {
    let mut body = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 8,
        "temperature": 0,
    });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn text(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn an_answer_has_openais_shape() {
    let server = Server::start(&[]);
    let reply = server.post(PATH, &request(json!({})));
    assert!(reply.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    let body = reply.ok();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "m");
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &body["choices"][0];
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &Value::Null));
    assert_eq!(
        (&choice["message"]["role"], &choice["message"]["refusal"]),
        (&json!("assistant"), &Value::Null)
    );
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
    let usage = &body["usage"];
    let (prompt, completion) =
        (usage["prompt_tokens"].as_u64().unwrap(), usage["completion_tokens"].as_u64().unwrap());
    assert!(prompt > 10 && (1..=8).contains(&completion), "{usage}");
    assert_eq!(usage["total_tokens"], prompt + completion);
    // The same prompt again comes out of the cache, with the same answer.
    let again = server.post(PATH, &request(json!({}))).ok();
    assert_eq!(text(&again), text(&body));
    assert_eq!(again["usage"]["prompt_tokens"], prompt);
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{again}");
}

#[test]
fn a_stream_gives_the_same_as_the_whole_answer() {
    let server = Server::start(&[]);
    for extra in [
        json!({}),
        json!({"n": 3, "temperature": 1.5, "seed": 5}),
        json!({"logprobs": true, "top_logprobs": 2}),
    ] {
        let mut body = request(extra);
        let whole = server.post(PATH, &body).ok();
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let (chunks, done) = server.stream(PATH, &body);
        assert!(done);
        let n = whole["choices"].as_array().unwrap().len();
        let (mut texts, mut finish) = (vec![String::new(); n], vec![Value::Null; n]);
        let mut logprobs = vec![Vec::new(); n];
        let (last, rest) = chunks.split_last().unwrap();
        for chunk in rest {
            assert_eq!((&chunk["object"], &chunk["usage"]), (&json!("chat.completion.chunk"), &Value::Null));
            assert_eq!(chunk["id"], last["id"]);
            let choice = &chunk["choices"][0];
            let i = choice["index"].as_u64().unwrap() as usize;
            texts[i].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            logprobs[i].extend(choice["logprobs"]["content"].as_array().into_iter().flatten().cloned());
            if !choice["finish_reason"].is_null() {
                finish[i] = choice["finish_reason"].clone();
            }
        }
        assert_eq!(last["choices"], json!([]));
        for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(last["usage"][field], whole["usage"][field]);
        }
        for i in 0..n {
            let choice = &whole["choices"][i];
            assert_eq!(
                (texts[i].as_str(), &finish[i]),
                (choice["message"]["content"].as_str().unwrap(), &choice["finish_reason"])
            );
            match choice["logprobs"]["content"].as_array() {
                Some(whole) => assert_eq!(&logprobs[i], whole),
                None => assert!(logprobs[i].is_empty()),
            }
        }
    }
}

#[test]
fn settings_do_what_they_say() {
    let server = Server::start(&[]);
    let ask = |extra: Value| server.post(PATH, &request(extra)).ok();
    let greedy = ask(json!({}));
    // Without the penalty this model says one token again and again.
    let varied = json!({"frequency_penalty": 2, "max_completion_tokens": 16});
    let long = ask(varied.clone());
    let long_text = text(&long).to_owned();

    let stop = long_text.chars().nth(4).unwrap().to_string();
    let mut with_stop = varied.clone();
    with_stop["stop"] = json!(stop);
    let cut = ask(with_stop.clone());
    let before = &long_text[..long_text.find(&stop).unwrap()];
    assert_eq!((text(&cut), &cut["choices"][0]["finish_reason"]), (before, &json!("stop")));
    for name in ["include_stop_str_in_output", "no_stop_trim"] {
        let mut included = with_stop.clone();
        included[name] = json!(true);
        assert_eq!(text(&ask(included)), format!("{before}{stop}"));
    }

    let three = ask(json!({"max_completion_tokens": 3}));
    assert_eq!(three["usage"]["completion_tokens"], 3);
    assert_eq!(three["choices"][0]["finish_reason"], "length");
    assert_eq!(text(&ask(json!({"max_completion_tokens": null, "max_tokens": 3}))), text(&three));

    // Token 33 is "A": a byte-level vocabulary after three special tokens.
    let biased = ask(json!({"logit_bias": {"35": 100}}));
    assert_eq!(text(&biased), "A".repeat(8));

    let hot = |seed: i64| text(&ask(json!({"temperature": 2, "seed": seed, "top_p": 1}))).to_owned();
    assert_eq!(hot(-3), hot(-3));
    assert!((0..4).any(|seed| hot(seed) != hot(9)), "the seed makes no difference");
    assert_eq!(text(&ask(json!({"temperature": 2, "top_k": 1, "seed": 4}))), text(&greedy));
    assert_eq!(text(&ask(json!({"temperature": 2, "top_p": 0, "seed": 4}))), text(&greedy));
    assert_eq!(text(&ask(json!({"temperature": 2, "min_p": 1, "seed": 4}))), text(&greedy));
    assert_ne!(
        text(&ask(json!({"repetition_penalty": 100, "max_completion_tokens": 16}))),
        text(&ask(json!({"max_completion_tokens": 16})))
    );

    let n = ask(json!({"n": 3, "temperature": 2, "seed": 1, "top_p": 1}));
    let texts: Vec<&str> = (0..3).map(|i| n["choices"][i]["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(texts, [hot(1), hot(2), hot(3)], "choice i has seed + i");
    assert_eq!(n["usage"]["prompt_tokens"], greedy["usage"]["prompt_tokens"], "the prompt counts once");

    let logprobs = ask(json!({"logprobs": true, "top_logprobs": 20}));
    let entries = logprobs["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(entries.len(), 8);
    for entry in entries {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 20);
        // Greedy takes the likeliest.
        assert_eq!((&entry["token"], &entry["logprob"]), (&top[0]["token"], &top[0]["logprob"]));
        let sum: f64 = top.iter().map(|t| t["logprob"].as_f64().unwrap().exp()).sum();
        assert!(sum > 0.0 && sum <= 1.0001, "{sum}");
    }
    let none = ask(json!({"logprobs": true}));
    assert_eq!(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[test]
fn a_stop_token_ends_an_answer_unless_it_is_to_be_ignored() {
    let server = Server::start(&[]);
    let ask = |extra: Value| server.post(PATH, &request(extra)).ok();
    // </s>
    let ended = ask(json!({"logit_bias": {"2": 100}}));
    assert_eq!((text(&ended), &ended["choices"][0]["finish_reason"]), ("", &json!("stop")));
    assert_eq!(ended["usage"]["completion_tokens"], 1);
    let ignored = ask(json!({"logit_bias": {"2": 100}, "ignore_eos": true}));
    assert_eq!((text(&ignored), &ignored["usage"]["completion_tokens"]), ("", &json!(8)));
    let shown = ask(json!({"logit_bias": {"2": 100}, "ignore_eos": true, "skip_special_tokens": false}));
    assert_eq!(text(&shown), "</s>".repeat(8));
    let other = ask(json!({"logit_bias": {"35": 100}, "stop_token_ids": [35]}));
    assert_eq!((text(&other), &other["choices"][0]["finish_reason"]), ("", &json!("stop")));
}

/// A template that shows what it was given.
const SHOW: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}\
    {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}{% if enable_thinking %}<think>{% endif %}";

fn prompt(server: &Server, extra: Value) -> String {
    // The prompt comes back through its tokens.
    let tokens = server.post("/tokenize", &extra).ok();
    let tokens = json!({"model": "m", "tokens": tokens["tokens"]});
    server.post("/detokenize", &tokens).ok()["prompt"].as_str().unwrap().to_owned()
}

#[test]
fn messages_reach_the_template_as_they_are() {
    let home = home(2048);
    jinja(&home, SHOW);
    let server = Server::of(home, &["m"], &[]);
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you"}]},
        {"role": "assistant", "content": "Hm.", "reasoning_content": "Well"},
        {"role": "system", "content": "In French."},
        {"role": "user", "content": "Again"},
    ]);
    let rendered = prompt(&server, json!({"model": "m", "messages": messages}));
    assert_eq!(
        rendered,
        "<system>Be brief.<user>Hi\nyou<assistant>Hm.(Well)<system>In French.<user>Again<assistant>"
    );
    let open = prompt(&server, json!({"model": "m", "messages": messages, "add_generation_prompt": false}));
    assert!(open.ends_with("<user>Again"));

    let count = |extra: Value| {
        let mut body = request(extra);
        body["max_completion_tokens"] = json!(1);
        server.post(PATH, &body).ok()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let user = json!({"role": "user", "content": "Hi"});
    let plain = count(json!({}));
    assert_eq!(plain, "<user>Hi<assistant>".len() as u64);
    assert_eq!(
        count(json!({"chat_template_kwargs": {"enable_thinking": true}})),
        plain + "<think>".len() as u64
    );
    assert_eq!(count(json!({"add_generation_prompt": false})), plain - "<assistant>".len() as u64);
    let said = json!({"role": "assistant", "content": "I am"});
    // The answer goes on with the last message, without a second beginning.
    assert_eq!(count(json!({"messages": [user, said], "continue_final_message": true})), plain + 4);
    assert_eq!(count(json!({"messages": [user, said]})), plain + 4 + "<assistant>".len() as u64);

    for (extra, param) in [
        (json!({"chat_template_kwargs": {"thinking": 1}}), "chat_template_kwargs.thinking"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs.messages"),
        (json!({"continue_final_message": true}), "continue_final_message"),
        (
            json!({"messages": [user, said], "continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
        ),
    ] {
        server.post(PATH, &request(extra)).refused(400, Some(param));
    }
}

#[test]
fn a_template_without_a_place_for_a_message_is_a_refusal_that_names_it() {
    // MLC's templates have a system message at the beginning only.
    let server = Server::start(&[]);
    let later = json!([{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}]);
    server.post(PATH, &request(json!({"messages": later}))).refused(400, Some("messages[1].role"));
    drop(server);

    // One that would lose it, and one that refuses it.
    let loses = "{% for m in messages %}{% if loop.first or m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}";
    let refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0].content }}";
    for (template, messages, param) in [
        (loses, later, "messages[1].role"),
        (refuses, json!([{"role": "system", "content": "x"}]), "messages[0].role"),
    ] {
        let home = home(2048);
        jinja(&home, template);
        let server = Server::of(home, &["m"], &[]);
        server.post(PATH, &request(json!({"messages": messages}))).refused(400, Some(param));
        server.post(PATH, &request(json!({}))).ok();
    }
}

#[test]
fn a_model_without_a_template_answers_completions_only() {
    let home = home(2048);
    edit(&home, |config| drop(config.as_object_mut().unwrap().remove("conv_template")));
    let server = Server::of(home, &["m"], &[]);
    let error = server.post(PATH, &request(json!({}))).refused(400, Some("messages"));
    assert!(error["message"].as_str().unwrap().contains("/v1/completions"));
    server.post("/v1/completions", &json!({"model": "m", "prompt": "abc", "max_tokens": 2})).ok();
}

#[test]
fn messages_that_are_wrong_are_named() {
    let server = Server::start(&[]);
    let user = json!({"role": "user", "content": "Hi"});
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let image = json!({"type": "image_url", "image_url": {"url": "data:,"}});
    let audio = json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}});
    let with = |message: Value| json!([user, message]);
    for (messages, param) in [
        (json!([]), "messages"),
        (json!("Hi"), "messages"),
        (with(json!("Hi")), "messages[1]"),
        (with(json!({"content": "Hi"})), "messages[1].role"),
        (with(json!({"role": 1, "content": "Hi"})), "messages[1].role"),
        (with(json!({"role": "wizard", "content": "Hi"})), "messages[1].role"),
        (with(json!({"role": "function", "name": "f", "content": "Hi"})), "messages[1].role"),
        (with(json!({"role": "user"})), "messages[1].content"),
        (with(json!({"role": "user", "content": 7})), "messages[1].content"),
        (with(json!({"role": "user", "content": []})), "messages[1].content"),
        (with(json!({"role": "user", "content": [image]})), "messages[1].content[0].type"),
        (
            with(json!({"role": "user", "content": [{"type": "text", "text": "x"}, audio]})),
            "messages[1].content[1].type",
        ),
        (with(json!({"role": "user", "content": [{"type": "text"}]})), "messages[1].content[0].text"),
        (
            with(json!({"role": "user", "content": [{"type": "text", "text": "x", "more": 1}]})),
            "messages[1].content[0].more",
        ),
        (with(json!({"role": "user", "content": "x", "weight": 1})), "messages[1].weight"),
        (with(json!({"role": "assistant"})), "messages[1].content"),
        (with(json!({"role": "assistant", "refusal": "No", "content": "x"})), "messages[1].refusal"),
        (
            with(json!({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]})),
            "messages[1].tool_calls[0].type",
        ),
        (
            with(
                json!({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "["}}]}),
            ),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (with(json!({"role": "tool", "content": "x", "tool_call_id": "c"})), "messages[1].tool_call_id"),
        (
            json!([user, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "x", "tool_call_id": "d"}]),
            "messages[2].tool_call_id",
        ),
        (
            json!([user, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "x", "tool_call_id": "c", "name": "g"}]),
            "messages[2].name",
        ),
    ] {
        server.post(PATH, &request(json!({"messages": messages}))).refused(400, Some(param));
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let server = Server::start(&[]);
    for (extra, param) in [
        (json!({"max_tokens": 3, "max_completion_tokens": 4}), "max_tokens"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stop": ["a", ""]}), "stop[1]"),
        (json!({"stop": ["a", 1]}), "stop[1]"),
        (json!({"stop": vec!["a"; 17]}), "stop"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias.x"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias.5"),
        (json!({"logit_bias": {"5": "1"}}), "logit_bias.5"),
        (json!({"logit_bias": {"999": 1}}), "logit_bias"),
        (json!({"stop_token_ids": [1.5]}), "stop_token_ids[0]"),
        (json!({"stop_token_ids": [5, 999999]}), "stop_token_ids[1]"),
    ] {
        server.post(PATH, &request(extra)).refused(400, Some(param));
    }
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_both_numbers() {
    let server = Server::of(home(200), &["m"], &[]);
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(300)}]});
    let error = server.post(PATH, &request(long)).refused(400, Some("messages"));
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    let tokens: u64 = message.split(' ').find_map(|w| w.parse().ok()).unwrap();
    assert!(tokens > 300 && message.contains("200"), "{message}");
    // An answer ends where the context does, and says so.
    let unbounded =
        server.post(PATH, &request(json!({"max_completion_tokens": 100_000, "ignore_eos": true}))).ok();
    assert_eq!(unbounded["choices"][0]["finish_reason"], "length");
    assert_eq!(unbounded["usage"]["total_tokens"], 200);
}
