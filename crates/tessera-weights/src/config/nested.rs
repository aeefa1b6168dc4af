//! One flat object of a config that is nested: the text part of models that also see, what MLC keeps aside, and rotary
//! settings for each kind of layer.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

/// MLC's `model_type` of a Hugging Face config: that of the language model, where it names one that holds another.
pub fn model_type(config: &Value) -> Option<String> {
    flattened(config).get("model_type")?.as_str().map(str::to_owned)
}

/// The config with its `text_config` over the top level, and with MLC's `kwargs` where nothing else says a field.
/// The top level's `model_type` and `tie_word_embeddings` stand.
pub fn flattened(config: &Value) -> Cow<'_, Value> {
    let Some(top) = config.as_object() else { return Cow::Borrowed(config) };
    let text = top.get("text_config").and_then(Value::as_object);
    let by_layer = |map: &Map<String, Value>| {
        map.get("rope_parameters").is_some_and(|p| p["full_attention"].is_object())
    };
    if text.is_none() && !by_layer(top) {
        return Cow::Borrowed(config);
    }
    let mut flat = top.clone();
    flat.shift_remove("text_config");
    let keeps = ["model_type", "tie_word_embeddings"];
    for (key, value) in text.into_iter().flatten() {
        if !(keeps.contains(&key.as_str()) && flat.get(key).is_some_and(|v| !v.is_null())) {
            flat.insert(key.clone(), value.clone());
        }
    }
    if let Some(Value::Object(aside)) = flat.shift_remove("kwargs") {
        for (key, value) in aside {
            if !flat.contains_key(&key) {
                flat.insert(key, value);
            }
        }
    }
    // What holds a language model beside another: MLC goes by the language model.
    if flat.get("model_type") == Some(&json!("mistral3"))
        && text.is_some_and(|text| text.get("model_type") == Some(&json!("ministral3")))
    {
        flat.insert("model_type".to_owned(), json!("ministral3"));
    }
    // MLC writes 0 for none.
    if flat.get("rope_scaling") == Some(&json!(0)) {
        flat.shift_remove("rope_scaling");
    }
    if by_layer(&flat) {
        let parameters = flat["rope_parameters"].clone();
        flat.insert("rope_parameters".to_owned(), parameters["full_attention"].clone());
        if let Some(theta) = parameters["sliding_attention"].get("rope_theta") {
            flat.insert("rope_local_base_freq".to_owned(), theta.clone());
        }
    }
    Cow::Owned(Value::Object(flat))
}
