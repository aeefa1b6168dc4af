//! Every family and scheme of the goldens on an adapter against the reference, which other tests hold to MLC's own logits
//! and Hugging Face's.

#[path = "../../tessera-engine/tests/families/mod.rs"]
mod families;
#[path = "support/far.rs"]
mod far;
#[path = "support/lost.rs"]
mod lost;
mod support;

use families::{cases, folders, in_chunks, run};
use far::far;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{backend, device};
use tessera_compute::backend::Backend;
use tessera_compute::reference::Reference;
use tessera_engine::model::Model;
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_gpu::verified::{Record, Verified};
use tessera_gpu::{Config, GpuBackend};

/// Root of the mean square of the differences, of that of the logits.
const BOUND: f64 = 1e-3;

#[test]
fn every_family_agrees_with_the_reference() {
    let Some(gpu) = backend(false) else { return };
    let mut wrong = Vec::new();
    for case in cases() {
        // Long prompts take lavapipe many seconds, and differ from others in attention only.
        if case.name.ends_with("-long") && !case.folder.ends_with("q4f32_1") {
            continue;
        }
        let found = run(&case, &gpu);
        assert!(
            found.iter().map(Vec::len).eq(case.steps.iter().map(|step| step.logits.len())),
            "{}",
            case.name
        );
        let far = far(&found.concat(), &run(&case, &Reference).concat());
        println!("{}: {far:.1e}", case.name);
        if far.is_nan() || far > BOUND {
            wrong.push(format!("{}: {far:e}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A row has the same bits alone, beside others, and however its prompt was cut.
#[test]
fn chunks_and_neighbours_change_no_bit() {
    let Some(gpu) = backend(true) else { return };
    for folder in folders() {
        let files = ModelFiles::open(&folder).unwrap();
        let room = Room { context: None, sequences: 2, memory: None };
        let mut model = Model::load(&files, &gpu, room).unwrap();
        let (most, vocab) = (model.context() as u32, model.config.vocab_size as u32);
        let prompt = |n: u32| (0..n.min(most)).map(|i| (i * i * 7 + n) % vocab).collect::<Vec<_>>();
        let prompts = [70u32, 13].map(prompt);
        let mut alone = |p| in_chunks(&mut model, std::slice::from_ref(p), 2048).remove(0);
        let expected: Vec<_> = prompts.iter().map(&mut alone).collect();
        for chunk in [3, 9] {
            let found = in_chunks(&mut model, &prompts, chunk);
            assert!(found == expected, "{}: chunks of {chunk}", folder.display());
        }
    }
}

/// A matrix in windows has the bits of a whole one.
#[test]
fn windows_change_no_bit() {
    let Some(gpu) = device() else { return };
    let (whole, mut cut) = (GpuBackend::new(gpu.clone(), Config::default()), 0);
    for folder in folders() {
        let files = ModelFiles::open(&folder).unwrap();
        let room = Room { context: Some(8), sequences: 1, memory: None };
        let bits = |backend: &GpuBackend| {
            let mut model = Model::load(&files, backend, room)?;
            let vocab = model.config.vocab_size as u32;
            let prompt: Vec<u32> = (0..5).map(|i| (i * i * 7 + 3) % vocab).collect();
            Ok::<_, tessera_engine::model::ModelError>(in_chunks(&mut model, &[prompt], 2))
        };
        let expected = bits(&whole).unwrap();
        for binding in [8192, 16384, 32768] {
            match bits(&GpuBackend::new(gpu.narrow(binding), Config::default())) {
                Ok(found) => {
                    assert!(found == expected, "{}: bindings of {binding}", folder.display());
                    cut += 1;
                    break;
                }
                Err(e) => println!("{}: {e}", folder.display()),
            }
        }
    }
    // The others' states or pages are larger than their matrices.
    assert!(cut > 35, "{cut} of the models have windows");
}

/// Each kind of operation of a model passes, and what a model runs afterwards is what was tested.
#[test]
fn a_model_runs_what_was_tested() {
    let Some(gpu) = device().map(|gpu| gpu.watched()) else { return };
    let (said, record) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Record>>::default());
    let heard = said.clone();
    let say = move |what: &str| heard.lock().unwrap().push(what.to_owned());
    let backend = Verified::new(gpu.clone(), Config::default(), record.clone(), say);
    for folder in folders() {
        let name = folder.display();
        let files = ModelFiles::open(&folder).unwrap();
        let room = Room { context: None, sequences: 1, memory: None };
        let mut model = Model::load(&files, &backend, room).unwrap();
        let tested = gpu.texts();
        let (most, vocab) = (model.context() as u32, model.config.vocab_size as u32);
        let prompt: Vec<u32> = (0..70.min(most)).map(|i| i * 7 % vocab).collect();
        in_chunks(&mut model, &[prompt], 30);
        let others: Vec<String> = gpu.texts().difference(&tested).cloned().collect();
        assert!(others.is_empty(), "{name}: {} kernels were not tested: {}", others.len(), others[0]);
        let words = std::mem::take(&mut *said.lock().unwrap());
        assert!(words.iter().all(|word| word.contains("tested, once")), "{name}: {words:?}");
        // What was found is known the next time.
        drop(Model::load(&files, &backend, room).unwrap());
        assert!(said.lock().unwrap().is_empty(), "{name}");
    }
}

/// The fastest kernels are searched once, are tested before they are used, and make the same bits.
#[test]
fn tuning_changes_no_bit() {
    let Some(gpu) = device() else { return };
    let (said, record) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Record>>::default());
    let heard = said.clone();
    let say = move |what: &str| heard.lock().unwrap().push(what.to_owned());
    let tuned = Verified::new(gpu.clone(), Config::default(), record.clone(), say);
    let tuned = tuned.tuning(Some(Duration::from_secs(600)));
    // With states, besides attention.
    let files = ModelFiles::open(&families::data().join("qwen3_5/q4f32_1")).unwrap();
    let room = Room { context: None, sequences: 1, memory: None };
    let run = |backend: &dyn Backend| {
        let mut model = Model::load(&files, backend, room).unwrap();
        let (most, vocab) = (model.context() as u32, model.config.vocab_size as u32);
        let prompt = (0..70.min(most)).map(|i| i * 7 % vocab).collect();
        in_chunks(&mut model, &[prompt], 33)
    };
    let expected = run(&GpuBackend::new(gpu.clone(), Config::default()));
    assert!(run(&tuned) == expected);
    let words = std::mem::take(&mut *said.lock().unwrap());
    assert!(words.iter().any(|word| word.contains("the fastest kernels are")), "{words:?}");
    assert!(run(&tuned) == expected);
    assert!(said.lock().unwrap().is_empty());
    assert_eq!(record.lock().unwrap().tuned.len(), 1);
}

/// What was found wrong stays so: plainer kernels are tried, and then the adapter is refused, by what it was.
#[test]
fn what_is_wrong_is_not_used() {
    let Some(gpu) = device() else { return };
    let (said, record) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Record>>::default());
    let heard = said.clone();
    let say = move |what: &str| heard.lock().unwrap().push(what.to_owned());
    let backend = Verified::new(gpu, Config::default(), record.clone(), say);
    let folder = folders().swap_remove(0);
    let files = ModelFiles::open(&folder).unwrap();
    let room = Room { context: None, sequences: 1, memory: None };
    let load = || Model::load(&files, &backend, room).map(drop).map_err(|e| e.to_string());
    load().unwrap();
    let spoil = |config: Config| {
        let end = format!(" {config:?}");
        let mut record = record.lock().unwrap();
        *record.cases.iter_mut().find(|(key, _)| key.ends_with(&end)).unwrap().1 =
            Some("linear: 1 is 2".to_owned());
    };
    spoil(Config::default());
    load().unwrap();
    let words = std::mem::take(&mut *said.lock().unwrap());
    assert!(words.iter().any(|word| word.contains("is wrong in linear: 1 is 2")), "{words:?}");
    spoil(Config::PLAIN);
    let error = load().unwrap_err();
    assert!(error.contains("is wrong in linear: 1 is 2"), "{error}");
}
