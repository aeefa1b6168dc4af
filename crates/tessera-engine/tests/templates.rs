//! Jinja templates against what Python's Jinja makes of them, in the environment of transformers. The
//! golden files are made by `make_template_golden.py` beside this file.

use serde_json::{Map, Value, json};
use std::collections::HashMap;
use tessera_engine::template::{JinjaTemplate, Message, RenderOptions, TemplateError};

/// A template in a folder whose config names these special tokens.
fn template(source: &str, tokens: &Value) -> Result<JinjaTemplate, TemplateError> {
    let mut config = tokens.clone();
    config["chat_template"] = source.into();
    let lookup = |name: &str| (name == "tokenizer_config.json").then(|| config.to_string().into_bytes());
    Ok(JinjaTemplate::from_files(lookup)?.expect("the folder has a template"))
}

fn outcome(rendered: Result<String, TemplateError>) -> Value {
    match rendered {
        Ok(text) => json!({"text": text}),
        Err(TemplateError::Raised(message)) => json!({"raised": message}),
        Err(_) => json!({"failed": true}),
    }
}

fn expected(case: &Value) -> Value {
    ["text", "raised", "failed"].iter().find_map(|k| Some(json!({*k: case.get(*k)?}))).expect("an outcome")
}

/// What the templates of a golden file give otherwise than Python.
fn differing(golden: &Value, tokens: impl Fn(&str) -> Value) -> Vec<String> {
    let mut compiled = HashMap::new();
    let mut wrong = Vec::new();
    for case in golden["cases"].as_array().expect("cases") {
        let name = case["template"].as_str().expect("a name");
        let source = golden["templates"][name].as_str().expect("a template");
        let template = compiled
            .entry(name)
            .or_insert_with(|| template(source, &tokens(name)).unwrap_or_else(|e| panic!("{name}: {e}")));
        let conversation = &golden["conversations"][case["conversation"].as_str().expect("a name")];
        let messages: Vec<Message> = serde_json::from_value(conversation.clone()).expect("messages");
        let options = RenderOptions {
            add_generation_prompt: case["generate"] == true,
            tools: (case["tools"] == true).then(|| golden["tools"].clone()),
            now: golden["now"].as_i64(),
            variables: case["variables"].as_object().cloned().unwrap_or_default(),
        };
        let found = outcome(template.render(&messages, &options));
        let known = case["rendered_here"] == true || ESCAPES.contains(&name);
        if found != expected(case) && !(known && found.get("text").is_some()) {
            let with = format!("{} {} {}", case["conversation"], case["tools"], case["variables"]);
            wrong.push(format!("{name}, {with}:\n  {found}\n  {}", expected(case)));
        }
    }
    wrong
}

#[test]
fn templates_of_known_families_agree_with_python() {
    let golden: Value = serde_json::from_str(include_str!("data/templates.golden.json")).unwrap();
    assert!(golden["cases"].as_array().unwrap().len() > 180);
    let wrong = differing(&golden, |_| json!({"bos_token": "<s>", "eos_token": "</s>"}));
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
#[ignore = "needs other people's templates: scripts/compare-templates fetches them and runs this"]
fn templates_of_packages_agree_with_python() {
    let path = std::env::var("TESSERA_TEMPLATES").expect("TESSERA_TEMPLATES names a golden file");
    let parts: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for golden in &parts {
        wrong.extend(differing(golden, |name| golden["tokens"][name].clone()));
        let rendered = |case: &&Value| case.get("text").is_some();
        let cases = golden["cases"].as_array().unwrap();
        println!(
            "{} templates, {} cases, {} of them with a text",
            golden["templates"].as_object().unwrap().len(),
            cases.len(),
            cases.iter().filter(rendered).count()
        );
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn constructs_agree_with_python() {
    let golden: Value = serde_json::from_str(include_str!("data/constructs.golden.json")).unwrap();
    let mut variables: Map<String, Value> = golden["variables"].as_object().unwrap().clone();
    let messages: Vec<Message> = serde_json::from_value(variables.remove("messages").unwrap()).unwrap();
    let tokens: Map<String, Value> = variables
        .iter()
        .filter(|(k, _)| k.ends_with("_token"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let tokens = Value::Object(tokens);
    variables.retain(|name, _| !name.ends_with("_token"));
    let options = RenderOptions {
        add_generation_prompt: true,
        tools: variables.remove("tools"),
        now: golden["now"].as_i64(),
        variables,
    };
    let (mut wrong, mut known) = (Vec::new(), Vec::new());
    for case in golden["cases"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let rendered = template(source, &tokens).and_then(|t| t.render(&messages, &options));
        let error = rendered.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let (found, expected) = (outcome(rendered), expected(case));
        if found == expected {
            continue;
        }
        match (REFUSED.contains(&source), OTHERWISE.contains(&source)) {
            (true, false) if found == json!({"failed": true}) => known.push(source),
            (false, true) => known.push(source),
            _ => wrong.push(format!("{source}\n  {found} {error}\n  {expected}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(
        known.len(),
        REFUSED.len() + OTHERWISE.len(),
        "some of the known differences are none: {known:?}"
    );
}

#[test]
fn whatever_grows_is_paid_for() {
    let messages = [Message::new("user", "x")];
    for source in [
        "{{ 'x'.rjust(10 ** 9) }}",
        "{{ 'x'.center(10 ** 12) | length }}",
        "{{ 'x'.zfill(10 ** 18) }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{{ '\\t'.expandtabs(10 ** 10) }}",
        "{{ '{:>1000000000}'.format('x') }}",
        "{{ ('{:>60000}' * 10000).format('x') }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x\\n' * 1000 | indent(10 ** 9) }}",
        "{{ ('\\n' * 100000) | indent(10 ** 6) }}",
        "{{ '<' * 10 ** 9 | e }}",
        "{{ ('x' * 1000000).join(range(1000) | map('string') | list) }}",
        "{{ 'a'.replace('', 'b' * 1000000).replace('b', 'c' * 1000000) }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ range(10 ** 9) | list }}",
        "{% set ns = namespace(x='a') %}{% for i in range(90000) %}{% set ns.x = ns.x.rjust(90000 + i) %}{% endfor %}",
        "{% set x = range(3000) | list %}{% for i in range(3000) %}{{ x.index(2999) }}{% endfor %}",
        // A sum of lists is put off until it is looked at.
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(31) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ 2 in ns.x }}",
        // One value in two places is two values when it is shown or compared.
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set x = range(100000) | list %}{% for i in range(100000) %}{% set y = x[:] %}{% endfor %}",
        "{% for i in range(90000) %}{{ strftime_now('%Y' * 60000) }}{% endfor %}",
    ] {
        let rendered =
            template(source, &json!({})).and_then(|t| t.render(&messages, &RenderOptions::answer()));
        assert!(
            matches!(rendered, Err(TemplateError::Jinja { .. })),
            "{source}: {:?}",
            rendered.map(|t| t.len())
        );
    }
}

/// On the two megabytes of a test's thread: what nests is refused, wherever the nesting is.
#[test]
fn what_nests_too_deeply_is_refused() {
    let messages = [Message::new("user", "x")];
    let error = |source: &str| {
        let rendered =
            template(source, &json!({})).and_then(|t| t.render(&messages, &RenderOptions::answer()));
        let shown: String = source.chars().take(80).collect();
        match rendered {
            Err(TemplateError::Jinja { what, .. }) => what,
            other => panic!("{shown}: {:?}", other.map(|t| t.len())),
        }
    };
    let ns = |set: &str| {
        format!("{{% set ns = namespace(x=[]) %}}{{% for i in range(9000) %}}{set}{{% endfor %}}")
    };
    for (source, why) in [
        // Values.
        (ns("{% set ns.x = [ns.x] %}"), "64 levels"),
        (ns("{% set ns.x = {'a': ns.x} %}"), "64 levels"),
        (ns("{% set ns.x = (ns.x, 1) %}"), "64 levels"),
        (ns("{% set ns.x = [ns.x] | batch(1) %}"), "64 levels"),
        (ns("{% set ns.x = {'a': ns.x} | items %}"), "64 levels"),
        (ns("{% set ns.x = namespace(x=ns.x) %}"), "data only"),
        (ns("{% set ns.x = cycler(ns.x) %}"), "data only"),
        (ns("{% for j in [ns.x] %}{% set ns.x = loop %}{% endfor %}"), "data only"),
        (ns("{% set p = ns.x %}{% macro m() %}{{ p }}{% endmacro %}{% set ns.x = m %}"), "data only"),
        ("{% set x = [x] %}".repeat(50_000), "64 levels"),
        ("{% set x = {1: x} %}".repeat(50_000), "64 levels"),
        ("{% set x = dict(a=x) %}".repeat(40_000), "64 levels"),
        ("{% set x = cycler(x) %}".repeat(40_000), "data only"),
        // What contains itself.
        ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_owned(), "data only"),
        ("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns == ns }}".to_owned(), "data only"),
        // Expressions, which the parser reads in a loop and the compiler by recursion.
        (format!("{{{{ x{} }}}}", " + x".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", "|e".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", ".x".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", "[0]".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", "()".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", " and x".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", " is defined".repeat(9000)), "200 levels"),
        (format!("{{{{ x{} }}}}", " if x else x".repeat(9000)), "200 levels"),
        (format!("{{{{ {}x }}}}", "not ".repeat(9000)), "200 levels"),
        (format!("{{{{ {}1 }}}}", "-".repeat(9000)), "200 levels"),
        (format!("{{% if x{} %}}{{% endif %}}", " ~ x".repeat(9000)), "200 levels"),
        (format!("{{% set y = x{} %}}", " ~ x".repeat(9000)), "200 levels"),
        (format!("{{{{ {}x{} }}}}", "(".repeat(9000), ")".repeat(9000)), "200 levels"),
        (format!("{{{{ {}x{} }}}}", "[".repeat(90), "]".repeat(90)), "recursion"),
        (format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(9000)), "200 alternatives"),
        (format!("{}{}", "{% for i in x %}".repeat(9000), "{% endfor %}".repeat(9000)), "recursion"),
        // Calls.
        ("{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}".to_owned(), "recursion"),
        (
            format!(
                "{{% macro m(x) %}}{{{{ m(x{}) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
                "|batch(1)".repeat(90)
            ),
            "",
        ),
        ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(), "recursion"),
        ("{% block a %}{{ self.a() }}{% endblock %}".to_owned(), "recursion"),
        ("{% include 'chat_template' %}".to_owned(), ""),
        ("{% import 'chat_template' as x %}".to_owned(), ""),
    ] {
        let what = error(&source);
        assert!(what.contains(why), "{}: {what}", source.chars().take(80).collect::<String>());
    }
}

/// What is set is looked at on its way, and arrives as it was.
#[test]
fn what_is_set_stays_what_it_was() {
    for (source, expected) in [
        ("{% set x = [1, 'a', none, 2.5] %}{{ x }}", "[1, 'a', None, 2.5]"),
        ("{% set x = (1, 2) %}{{ x }}", "(1, 2)"),
        ("{% set x, y = 1, 2 %}{{ x }}{{ y }}", "12"),
        ("{% set x = {'b': [1], 'a': {'c': (1,)}} %}{{ x }}{{ x.a.c }}", "{'b': [1], 'a': {'c': (1,)}}(1,)"),
        ("{% set x = dict({'a': [1] + [2]}, b=2) %}{{ x.a }}{{ x.b }}{{ x | length }}", "[1, 2]22"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = [ns.a] + [2] %}{{ ns.a }}", "[1, 2]"),
        ("{% set ns = namespace() %}{% set o = [ns] %}{% set ns.a = 'x=y' %}{{ o[0].a }}", "x=y"),
        ("{%- set x = 'a' if true else 'b' -%}  {{ x }}", "a"),
        ("{% for i in [1, 2] -%}  {% set y = i == 1 %}{{ y }}{% endfor %}", "TrueFalse"),
        ("{% for i in [1, 2] %}\n{% set outer = loop %}{{ outer.index }}{% endfor %}", "12"),
        ("{% set s %}a = b{% endset %}{{ s }}", "a = b"),
        ("{% set g = [{'k': 1}, {'k': 1}] | groupby('k') %}{{ g[0].grouper }}{{ g[0].list | length }}", "12"),
        (
            "{% macro m(x) -%}  {{ x }}{%- endmacro %}{% set f = m %}{% set d = {'m': m} %}{{ f(1) }}{{ d.m(2) }}",
            "12",
        ),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}", "aba"),
        ("{% set x = messages[0] %}{% set y = x['content'] | trim %}{{ y }}", "x"),
    ] {
        let rendered = template(source, &json!({}))
            .and_then(|t| t.render(&[Message::new("user", " x ")], &RenderOptions::answer()));
        assert_eq!(rendered.unwrap_or_else(|e| e.to_string()), expected, "{source}");
    }
}

#[test]
fn every_special_token_has_its_place() {
    let source = "{{ bos_token }}|{{ pad_token }}|{{ unk_token }}|{{ image_token }}|{{ additional_special_tokens | join(',') }}";
    let config = json!({
        "chat_template": source, "bos_token": {"content": "<s>"}, "unk_token": null, "pad_token": "<pad>",
        "additional_special_tokens": ["<a>", {"content": "<b>"}], "extra_special_tokens": {"image_token": "<img>"},
    });
    let render = |config: &Value, map: &Value, variables: Value| {
        let lookup = |name: &str| match name {
            "tokenizer_config.json" => Some(config.to_string().into_bytes()),
            "special_tokens_map.json" => Some(map.to_string().into_bytes()),
            _ => None,
        };
        let variables = variables.as_object().unwrap().clone();
        let options = RenderOptions { variables, ..RenderOptions::default() };
        JinjaTemplate::from_files(lookup).unwrap().unwrap().render(&[], &options).unwrap()
    };
    assert_eq!(render(&config, &json!({}), json!({})), "<s>|<pad>||<img>|<a>,<b>");
    let map = json!({"unk_token": {"content": "<unk>"}});
    assert_eq!(render(&config, &map, json!({})), "<s>|<pad>|<unk>|<img>|<a>,<b>");
    let mut decoder = config.clone();
    decoder["added_tokens_decoder"] = json!({"0": {"content": "<unk>"}});
    assert_eq!(render(&decoder, &map, json!({})), "<s>|<pad>||<img>|<a>,<b>");
    assert_eq!(render(&config, &map, json!({"pad_token": "P"})), "<s>|P|<unk>|<img>|<a>,<b>");
}

/// Templates that add texts to one that is marked `safe`, which makes Python escape them for HTML.
const ESCAPES: &[&str] = &["meetkai-functionary-medium-v3.1"];

/// What Python takes and this refuses with an error that names it.
const REFUSED: &[&str] = &[
    "{{ 'abc\\n'.isprintable() }}",
    "{{ 'abc'.isprintable() }}",
    "{{ '{!r}'.format('a') }}",
    "{{ 'abc'.translate({97: 'x'}) }}",
    "{{ 'abc'.encode('utf-8') }}",
    "{{ 'é'.encode() }}",
    "{{ 'abc'.format_map({'a': 1}) }}",
    "{{ '%s is %d' % ('x', 3) }}",
    "{{ '%s' % 'x' }}",
    "{{ '%5.2f|%-5s|%05d|%x|%%' % (3.14159, 'a', 42, 255) }}",
    "{{ '%s' % [1] }}",
    "{{ '%(a)s' % {'a': 1} }}",
    "{{ '%r' % 'x' }}",
    "{{ dict([('a', 1)]) }}",
    "{{ (1).bit_length() }}",
    "{{ d | pprint }}",
    "{{ [1, 'a'] | pprint }}",
    "{{ 'see http://x.com now' | urlize }}",
    "{{ 'The quick brown fox jumps' | wordwrap(10) }}",
    "{{ 'abcdefghijklmno pq' | wordwrap(5) }}",
    "{{ 'abcdefghijklmno pq' | wordwrap(5, false) }}",
    "{{ 'a-b-c-d-e-f' | wordwrap(4) }}",
    "{{ 'a\\n\\nb c' | wordwrap(3, wrapstring='|') }}",
    "{{ {'a': 1, 'b': none, 'c': '<'} | xmlattr }}",
    "{{ {'a': 1} | xmlattr(false) }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{{ l[0], l[1] }}",
    "{{ -l[0] }}{{ +l[0] }}",
];

/// What this shows otherwise than Python: values whose text no prompt has, and what fails in Python.
const OTHERWISE: &[&str] = &[
    "{{ d.keys() }}",
    "{{ d.values() }}",
    "{{ d.items() }}",
    "{{ (5).real }}",
    "{{ true.real }}",
    "{{ ['\\x00', '\\x7f', '\\u200b', '🙂', '\\xa0', '\\u0301'] }}",
    "{{ 1 in 'abc' }}",
    "{{ 1 < 'a' }}",
    "{{ none < 1 }}",
    "{{ '\\t|\\r|\\x41|\\u00e9|\\a|\\q|\\101' }}",
    "{{ 'a\\\nb' }}",
    "{{ \"\\N{BULLET}\" }}",
    "{{ range(2) | tojson }}",
    "{{ range(3) }}",
    "{{ self is defined }}",
    "{{ people | map(attribute='city') | list }}",
    "{{ people | map(attribute='name.x') | list }}",
    "{{ people[0] | attr('name') }}",
    "{% for x in none %}{{ x }}{% endfor %}|",
    "{% set ns = namespace() %}{% set ns._x = 1 %}{{ ns._x }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}",
    "{% macro m(x, y=x) %}{{ y }}{% endmacro %}{{ m(3) }}",
    "{% for x in l %}{{ loop }}{% break %}{% endfor %}",
    "{{ namespace(a=1) }}",
];
