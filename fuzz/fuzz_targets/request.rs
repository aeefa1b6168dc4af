//! Any bytes as a request: the first byte says to which endpoint, the rest is the body. No panic, and what is
//! refused is refused in OpenAI's shape. The model is a golden folder with a byte for each token, so templates,
//! tools, schemas, prompts and stops are read as the server reads them; nothing is generated.
//!
//! ```text
//! mkdir -p fuzz/corpus/request && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none request fuzz/corpus/request \
//!     fuzz/seeds/request -- -runs=1000000 -dict=fuzz/request.dict -max_len=8192
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;
use tessera::compute::cpu::Cpu;
use tessera::engine::model::Model;
use tessera::engine::open::ModelFiles;
use tessera::engine::plan::Room;
use tessera::engine::template::TemplateChoice;
use tessera::engine::text::Text;
use tessera::server::{Endpoints, LoadedModel};

const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];

fn endpoints() -> &'static Endpoints {
    static ENDPOINTS: OnceLock<Endpoints> = OnceLock::new();
    ENDPOINTS.get_or_init(|| {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/tessera-weights/tests/data");
        let files =
            ModelFiles::open(&data.join("golden/llama-tied-bf16/q4f32_1")).expect("the golden folder opens");
        let text = Text::open(&files, TemplateChoice::Auto).expect("it has a tokenizer");
        let room = Room { context: None, sequences: 1, memory: None };
        let model = Model::load(&files, &Cpu::default(), room).expect("it fits");
        Endpoints::new(LoadedModel { model, text }).expect("its engine starts")
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((endpoint, body)) = bytes.split_first() else { return };
    let path = PATHS[usize::from(*endpoint) % PATHS.len()];
    if let Some(Err(refused)) = endpoints().plan(path, body) {
        let error = &refused["error"];
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{refused}");
        assert!(error["type"].is_string() && error["code"].is_string(), "{refused}");
        assert_ne!(error["type"], "server_error", "{refused}");
    }
});
