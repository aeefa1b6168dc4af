//! Logits that JavaScript changes before a token is chosen.

use js_sys::{Float32Array, Function};
use send_wrapper::SendWrapper;
use tessera_engine::sampler::LogitProcessor;
use tessera_openai::desk::MakeProcessor;
use wasm_bindgen::prelude::*;

/// Two functions of JavaScript's, which stay on their thread: an engine samples where its turns are made.
struct Functions {
    functions: SendWrapper<[Function; 2]>,
    /// What hearing of a token threw, which the next one tells.
    thrown: Option<String>,
}

/// Processors that share these functions.
pub fn maker(process: Function, chosen: Function) -> MakeProcessor {
    Box::new(move || {
        let functions = SendWrapper::new([process.clone(), chosen.clone()]);
        Box::new(Functions { functions, thrown: None })
    })
}

/// What was thrown, in words.
fn words(thrown: &JsValue) -> String {
    let message = thrown.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
    message.or_else(|| thrown.as_string()).unwrap_or_else(|| "it threw".to_owned())
}

impl LogitProcessor for Functions {
    fn process(&mut self, logits: &mut [f32]) -> Result<(), String> {
        if let Some(thrown) = self.thrown.take() {
            return Err(thrown);
        }
        let given = Float32Array::from(&*logits);
        let made = self.functions[0].call1(&JsValue::UNDEFINED, &given).map_err(|thrown| words(&thrown))?;
        let made = made.dyn_into::<Float32Array>().map_err(|_| "it returns no Float32Array".to_owned())?;
        if made.length() as usize != logits.len() {
            return Err(format!("it returns {} logits of {}", made.length(), logits.len()));
        }
        made.copy_to(logits);
        Ok(())
    }

    fn chosen(&mut self, token: u32) {
        let heard = self.functions[1].call1(&JsValue::UNDEFINED, &token.into());
        self.thrown = heard.err().map(|thrown| words(&thrown));
    }
}
