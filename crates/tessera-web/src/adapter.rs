//! The adapter that a page is given, and what is known of it.

use crate::opening::{Fault, Read, cpu};
use crate::{Engine, Folder, Notes, locked, thrown};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tessera_compute::backend::Backend;
use tessera_engine::model::Model;
use tessera_gpu::verified::{Record, Verified, build};
use tessera_gpu::{Config, Gpu, GpuBackend};
use wasm_bindgen::prelude::*;

/// An open adapter.
#[wasm_bindgen]
pub struct Adapter {
    gpu: Gpu,
    record: Arc<Mutex<Record>>,
    notes: Notes,
}

#[wasm_bindgen]
impl Adapter {
    /// Opens the one that this page is given; nothing where it is given none. `name`: what the browser calls it.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn open(name: String) -> Result<Option<Adapter>, JsValue> {
        let Some(given) = tessera_gpu::Adapter::given().await else { return Ok(None) };
        let gpu = given.open(false).await.map_err(|e| thrown(Fault::new("gpu", e.to_string())))?;
        Ok(Some(Adapter { gpu: gpu.named(name), record: Arc::default(), notes: Arc::default() }))
    }

    /// `{name, software, binding, buffer, build}`: bytes that a binding and a buffer may have, and a number of the kernels.
    pub fn describe(&self) -> String {
        let about = self.gpu.describe();
        json!({
            "name": about.name,
            "software": about.software,
            "binding": about.binding,
            "buffer": about.buffer,
            "build": format!("{:016x}", build()),
        })
        .to_string()
    }

    /// Takes what was known of an adapter of this description; what cannot be read is not known.
    pub fn know(&self, record: &str) {
        *locked(&self.record) = serde_json::from_str(record).unwrap_or_default();
    }

    /// What is known of it, to be kept.
    pub fn known(&self) -> String {
        serde_json::to_string(&*locked(&self.record)).unwrap_or_default()
    }

    /// Another handle of the same.
    pub fn share(&self) -> Adapter {
        Adapter { gpu: self.gpu.clone(), record: self.record.clone(), notes: self.notes.clone() }
    }
}

#[wasm_bindgen]
impl Folder {
    /// Loads the model on an adapter that computes it rightly, else on the calling thread; not there if it `must` be the
    /// adapter.
    ///
    /// # Errors
    /// See [`Folder::open`]; with the code `gpu` what is wrong with the adapter.
    #[wasm_bindgen(js_name = openOn)]
    pub async fn open_on(
        self,
        adapter: Adapter,
        must: bool,
        name: String,
        sequences: usize,
    ) -> Result<Engine, JsValue> {
        let read = self.0.read().map_err(thrown)?;
        let tried = adapter.load(&read, sequences).await;
        let mut found = adapter.notes();
        let (model, verified) = match tried {
            Ok((model, config)) => (model, Some((adapter.gpu.describe().clone(), config))),
            Err(fault) if must => return Err(thrown(fault)),
            Err(fault) => {
                found.push(format!("it runs on the CPU, on one thread: {}", fault.message));
                (read.model(&cpu(1), sequences).map_err(thrown)?, None)
            }
        };
        let (desk, notes) = read.desk(model, &name, sequences).map_err(thrown)?;
        found.extend(notes);
        Ok(Engine { verified, ..Engine::new(desk, found) })
    }
}

#[wasm_bindgen]
impl Engine {
    /// After the adapter was lost: the next turn loads the model again, on this one or on the calling thread, and what was
    /// asked goes on. Another adapter than the one that was tested is not taken.
    pub fn regain(&mut self, adapter: Option<Adapter>) {
        let notes = self.notes.clone();
        let mut backend = adapter.zip(self.verified.as_ref()).and_then(|(adapter, (tested, config))| {
            let found = adapter.gpu.describe();
            if found == tested {
                return Some(GpuBackend::new(adapter.gpu, *config));
            }
            locked(&notes).push(format!("{} is not tested, and not taken for {}", found.name, tested.name));
            None
        });
        self.desk.machine().set_loader(Box::new(move |program, weights, pools| {
            let on = backend.take().map(|backend| backend.load(program.clone(), &mut *weights, pools));
            match on {
                Some(Ok(executor)) => return Ok(executor),
                Some(Err(error)) => {
                    locked(&notes).push(format!("the adapter does not take the model again: {error}"))
                }
                None => {}
            }
            cpu(1).load(program, weights, pools)
        }));
    }
}

impl Adapter {
    /// A model on it, and which of its kernels compute that rightly.
    async fn load(&self, read: &Read, sequences: usize) -> Result<(Model, Config), Fault> {
        let program = read.program()?;
        let notes = self.notes.clone();
        let say = move |what: &str| locked(&notes).push(what.to_owned());
        let verified = Verified::new(self.gpu.clone(), Config::default(), self.record.clone(), say);
        let config = verified.configured(&program).await.map_err(|e| Fault::new("gpu", e.to_string()))?;
        let backend = GpuBackend::new(self.gpu.clone(), config);
        let model = read.model(&backend, sequences)?;
        match self.gpu.done().await {
            None => Ok((model, config)),
            Some(what) => Err(Fault::new("gpu", what)),
        }
    }

    /// What was noticed since this was asked.
    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.notes))
    }
}
