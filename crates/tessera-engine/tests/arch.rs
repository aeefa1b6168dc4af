//! Every family against the logits of others: MLC's own for MLC's meaning, those of Hugging Face's code for the
//! authors'. The tokens are fixed, and each call feeds what the README of the goldens says.

mod families;

use families::{Case, cases, data, folders, in_chunks, json, run};
use serde_json::Value;
use std::path::PathBuf;
use std::task::{Context, Poll, Waker};
use tessera_compute::backend::Backend;
use tessera_compute::batch::{GONE, Want};
use tessera_compute::cpu::Cpu;
use tessera_compute::program::{Made, Vector};
use tessera_compute::reference::Reference;
use tessera_compute::weights::Weights;
use tessera_engine::decoder::{FolderWeights, program};
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::{Budget, Room};
use tessera_engine::units::{ALL, STATE, WINDOW};
use tessera_weights::arch::{self, Mask, Semantics, Sizes};
use tessera_weights::convert::{ConvertOptions, convert};
use tessera_weights::hf::HfFolder;
use tessera_weights::manifest::{MANIFEST_NAMES, Manifest};
use tessera_weights::scheme::Scheme;

/// Of the largest logit: what the goldens' README advises for a plain f32 path.
const REFERENCE: f64 = 2e-5;
/// Root of the mean square of the differences, of that of the logits: keys and values are f16 on the CPU, and
/// activations have 15 bits.
const CPU: f64 = 6e-3;
/// Conversion rounds `1 + weight` to bf16 where the authors' code adds in f32: of the largest logit.
const ROUNDED: &[(&str, f64)] =
    &[("gemma", 3e-3), ("gemma2", 5e-3), ("gemma3_text", 5e-3), ("qwen3_5", 3e-2)];

/// See [`ROUNDED`].
fn rounded(case: &Case) -> Option<f64> {
    let family = case.name.split('/').next().unwrap();
    let found = ROUNDED.iter().find(|r| r.0 == family && case.semantics == Semantics::Authors);
    found.map(|r| r.1)
}

/// How far the reference's logits are off at most, and the largest that there is.
fn farthest(case: &Case) -> (f64, f64) {
    let (mut far, mut largest) = (0.0f64, 0.0f64);
    for (found, step) in run(case, &Reference).iter().zip(&case.steps) {
        assert_eq!(found.len(), step.logits.len(), "{}", case.name);
        for (found, expected) in found.iter().zip(&step.logits) {
            // `max` would pass over a NaN.
            let off = (f64::from(*found) - expected).abs();
            far = if off <= far { far } else { off };
            largest = largest.max(expected.abs());
        }
    }
    (far, largest)
}

/// Root of the mean square of what the CPU's are off, of that of the logits.
fn on_cpu(case: &Case) -> f64 {
    let (mut far, mut size) = (0.0f64, 0.0f64);
    for (found, step) in run(case, &Cpu::default()).iter().zip(&case.steps) {
        for (found, expected) in found.iter().zip(&step.logits) {
            far += (f64::from(*found) - expected).powi(2);
            size += expected * expected;
        }
    }
    (far / size).sqrt()
}

#[test]
fn the_reference_agrees_with_mlc_and_with_hugging_face() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (far, largest) = farthest(&case);
        let bound = rounded(&case).unwrap_or(REFERENCE);
        println!("{}: {:.1e} of the largest logit", case.name, far / largest);
        if far.is_nan() || far > bound * largest {
            wrong.push(format!("{}: {far:e}, the largest is {largest:.1}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What MLC's conversion rounds is there where float32 is kept whole, so then the authors' logits are, too.
#[test]
fn what_is_kept_whole_is_what_the_authors_compute() {
    let mut seen = 0;
    for mut case in cases().into_iter().filter(|case| rounded(case).is_some()) {
        let hf = case.folder.with_file_name("hf");
        let config = json(&hf.join("config.json"));
        let model_type = tessera_weights::config::model_type(&config).unwrap();
        let params = arch::params(&model_type, &Sizes::from_json(&model_type, &config).unwrap()).unwrap();
        let chat = std::fs::read(case.folder.join("mlc-chat-config.json")).unwrap();
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("whole");
        let options = ConvertOptions { whole_f32: true, ..ConvertOptions::default() };
        let extra = [("mlc-chat-config.json".to_owned(), chat)];
        let source = HfFolder::open(&hf).unwrap();
        convert(&source, &params, Scheme::find("q0f32").unwrap(), &options, &folder, &extra).unwrap();
        case.folder = folder;
        let ((far, largest), cpu) = (farthest(&case), on_cpu(&case));
        println!(
            "{}: {:.1e} of the largest logit, {cpu:.1e} of the logits on the CPU",
            case.name,
            far / largest
        );
        assert!(far <= REFERENCE * largest, "{}: {far:e}, the largest is {largest:.1}", case.name);
        assert!(cpu <= CPU, "{}: {cpu:.1e}", case.name);
        seen += 1;
    }
    // Gemma 3 has two.
    assert_eq!(seen, ROUNDED.len() + 1);
}

#[test]
fn the_cpu_agrees_with_them() {
    let mut wrong = Vec::new();
    for case in cases() {
        let far = on_cpu(&case);
        println!("{}: {far:.1e} of the logits", case.name);
        if far.is_nan() || far > rounded(&case).unwrap_or(CPU).max(CPU) {
            wrong.push(format!("{}: {far:.1e}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chunks_and_neighbours_change_no_bit_of_any_family() {
    for folder in folders() {
        for semantics in [Semantics::Authors, Semantics::Mlc] {
            let mut files = ModelFiles::open(&folder).unwrap();
            files.semantics = semantics;
            // Past a window that goes by the call.
            let block = files.config.block(semantics);
            let long = block.attention.iter().any(|a| matches!(a.mask, Mask::CallWindow(_)));
            let room = Room { context: None, sequences: 2, memory: None };
            let cpu = Cpu { threads: 2, ..Cpu::default() };
            let mut model = Model::load(&files, &cpu, room).unwrap();
            let most = model.context() as u32;
            let vocab = model.config.vocab_size as u32;
            let lengths = if long { [1040, 1030] } else { [29u32, 13] };
            let prompt = |n: u32| (0..n.min(most)).map(|i| (i * i * 7 + n) % vocab).collect::<Vec<_>>();
            let prompts = lengths.map(prompt);
            let mut alone = |p| in_chunks(&mut model, std::slice::from_ref(p), 2048).remove(0);
            let expected: Vec<_> = prompts.iter().map(&mut alone).collect();
            for chunk in if long { [100, 333] } else { [1, 9] } {
                let found = in_chunks(&mut model, &prompts, chunk);
                assert!(found == expected, "{}, {semantics:?}: chunks of {chunk}", folder.display());
            }
        }
    }
}

/// Tokens of an answer that are fed together, as drafts are, are calls of their own all the same, and what they leave
/// is not taken for a prompt's.
#[test]
fn drafts_change_no_bit_where_windows_go_by_the_call() {
    let mut files = ModelFiles::open(&data().join("gemma3_text/q4f32_1")).unwrap();
    files.semantics = Semantics::Mlc;
    let room = Room { context: None, sequences: 2, memory: None };
    let mut model = Model::load(&files, &Cpu::default(), room).unwrap();
    let tokens: Vec<u32> = (0..1056).map(|i| i * 11 % 131).collect();
    let mut run = |together: usize| {
        let mut sequence = Sequence::default();
        let mut out = Vec::new();
        let prompt = Feed {
            sequence: &mut sequence,
            tokens: &tokens[..1040],
            call: 0..1040,
            drafts: 0,
            pick: Pick::None,
        };
        model.forward(&mut [prompt], Want::Logits).unwrap();
        for tokens in tokens[1040..].chunks(together) {
            let feed = Feed { sequence: &mut sequence, tokens, call: 0..0, drafts: 0, pick: Pick::All };
            out.extend_from_slice(&model.forward(&mut [feed], Want::Logits).unwrap().logits);
        }
        assert_eq!(model.reusable(&sequence, &tokens), 1040);
        model.release(sequence);
        out
    };
    let expected = run(1);
    assert_eq!(run(8), expected);
}

/// Logits of the last token after these were fed as the engine does, in steps that end where states are put aside.
fn fed(model: &mut Model, sequence: &mut Sequence, prompt: &[u32]) -> Vec<u32> {
    let mut bits = Vec::new();
    while sequence.tokens.len() < prompt.len() {
        let held = sequence.tokens.len();
        let n = model.span_limit(sequence, prompt.len(), prompt.len() - held);
        let (tokens, call) = (&prompt[held..held + n], 0..prompt.len());
        let feed = Feed { sequence: &mut *sequence, tokens, call, drafts: 0, pick: Pick::Last };
        let logits = &model.forward(&mut [feed], Want::Logits).unwrap().logits;
        bits = logits.iter().map(|x| x.to_bits()).collect();
        model.remember(sequence, false);
    }
    bits
}

/// A state is that of all tokens of its sequence. It is put aside where prompts part, where they end, and with the
/// answer; whoever begins there, or comes back there from a draft, gets the same bits.
#[test]
fn recurrences_go_on_where_a_state_was_put_aside() {
    for family in ["qwen3_5", "rwkv6"] {
        let mut files = ModelFiles::open(&data().join(family).join("q4f32_1")).unwrap();
        files.config.context_window_size = 256;
        let room = Room { context: None, sequences: 6, memory: None };
        let mut model = Model::load(&files, &Cpu::default(), room).unwrap();
        let text = |n: usize, from: usize| -> Vec<u32> {
            (0..n).map(|i| if i < from { i * 5 } else { i * 7 + from } as u32 % 131).collect()
        };
        let mut anew = |prompt: &[u32]| {
            let mut sequence = Sequence::default();
            let bits = fed(&mut model, &mut sequence, prompt);
            model.release(sequence);
            bits
        };
        // The second and third agree with the first for 100 and 90 tokens, the fourth is the first and more.
        let prompts = [text(150, 200), text(140, 100), text(135, 90), text(170, 150)];
        let expected = prompts.each_ref().map(|prompt| anew(prompt));
        model.keep_prefixes(true);
        let mut cached = Vec::new();
        for (prompt, expected) in prompts.iter().zip(&expected) {
            let mut sequence = model.begin(&prompt[..prompt.len() - 1], prompt.len());
            cached.push(sequence.tokens.len());
            assert!(fed(&mut model, &mut sequence, prompt) == *expected, "{family} {cached:?}");
            model.offer(&mut sequence);
            model.release(sequence);
        }
        // Where the second left the first its state was put aside: there the third begins.
        assert_eq!(cached, [0, 0, 64, 150], "{family}");

        // Wrong drafts: back to what was no guess, and then to where its prompt's last page ended.
        let mut sequence = model.begin(&prompts[0][..149], 150);
        assert_eq!(sequence.tokens.len(), 128);
        fed(&mut model, &mut sequence, &prompts[0][..140]);
        assert_eq!(model.draft_limit(&sequence, 140, (1, 8), model.kv().available()), 8);
        let tokens = [&prompts[0][140..142], &[1, 2, 3]].concat();
        let feed = Feed { sequence: &mut sequence, tokens: &tokens, call: 0..0, drafts: 4, pick: Pick::None };
        model.forward(&mut [feed], Want::Logits).unwrap();
        model.truncate(&mut sequence, 142);
        assert_eq!((sequence.tokens.len(), model.reusable(&sequence, &prompts[0])), (141, 141));
        assert!(fed(&mut model, &mut sequence, &prompts[0]) == expected[0], "{family}");
        model.truncate(&mut sequence, 149);
        assert_eq!(sequence.tokens.len(), 0, "there is no state of 149 tokens");
        model.release(sequence);
        assert_eq!(model.kv().available(), model.kv().total());
    }
}

/// Where memory holds fewer states than sequences are to run at once, that is said.
#[test]
fn fewer_states_than_sequences_are_told() {
    let files = ModelFiles::open(&data().join("qwen3_5/q4f32_1")).unwrap();
    let load = |sequences: usize| {
        let budget = Budget { fewer: true, ..Budget::of(8 << 20, 16) };
        let room = Room { context: None, sequences, memory: Some(budget) };
        let model = Model::load(&files, &Cpu::default(), room).unwrap();
        (model.kv().total()[STATE], model.notes().join("\n"))
    };
    assert_eq!(load(2), (8, String::new()));
    let (states, notes) = load(1000);
    let told = format!("{states} sequences can run at once, not 1000");
    assert!(states < 1000 && notes.contains(&told), "{states}: {notes}");
}

/// Whatever the length, a window costs no more pages than it is long, and not a bit is another one.
#[test]
fn windows_keep_no_more_than_they_see() {
    for (family, both) in [("mistral-window", false), ("gemma3_text", true)] {
        let files = ModelFiles::open(&data().join(family).join("q4f32_1")).unwrap();
        let mut roomy =
            Model::load(&files, &Cpu::default(), Room { context: None, sequences: 1, memory: None }).unwrap();
        let n = roomy.context().min(1400);
        let text: Vec<u32> = (0..n as u32).map(|i| (i * i * 3 + 1) % 131).collect();
        let mut sequence = Sequence::default();
        let expected = fed(&mut roomy, &mut sequence, &text);
        // Steps of 16 tokens.
        let budget = Budget::of(1 << 30, 16);
        let room = Room { context: None, sequences: 1, memory: Some(budget) };
        let mut model = Model::load(&files, &Cpu::default(), room).unwrap();
        let total = model.kv().total();
        let window = files.config.block(Semantics::Authors).attention.iter().find_map(|a| match a.mask {
            Mask::Window(n) => Some(n),
            _ => None,
        });
        let window = window.unwrap();
        assert!(
            total[WINDOW] < n / 64 && total[WINDOW] <= (window + 16).div_ceil(64) + 3,
            "{family} {total}"
        );
        assert_eq!(total[ALL] > 0, both, "{family}");
        let mut sequence = Sequence::default();
        let mut bits = Vec::new();
        for tokens in text.chunks(16) {
            let feed = Feed { sequence: &mut sequence, tokens, call: 0..n, drafts: 0, pick: Pick::Last };
            let logits = &model.forward(&mut [feed], Want::Logits).unwrap().logits;
            bits = logits.iter().map(|x| x.to_bits()).collect();
        }
        assert!(bits == expected, "{family}");
        let pages = sequence.pages()[WINDOW];
        assert!(pages.contains(&GONE) && pages.len() == n.div_ceil(64), "{family}");
        // It can take back a few tokens, and does not go on behind a window that is gone.
        model.truncate(&mut sequence, n - 20);
        assert_eq!(sequence.tokens.len(), n - 20);
        model.truncate(&mut sequence, 100);
        assert_eq!((sequence.tokens.len(), model.kv().available()), (0, total));
    }
}

/// The last hidden states of the texts in a golden of an encoder, row after row, and what they should be.
fn encoded(scheme: &str, backend: &dyn Backend) -> (Vec<Vec<u32>>, Vec<f32>, Vec<f64>) {
    let golden = json(&data().join(format!("bert/embedding-{scheme}.json")));
    let list = |value: &Value| value.as_array().unwrap().clone();
    let texts: Vec<Vec<u32>> = list(&golden["input_ids"])
        .iter()
        .map(|text| list(text).iter().map(|id| id.as_u64().unwrap() as u32).collect())
        .collect();
    // `[text][position][hidden]`, or flat.
    fn flat(value: &Value, out: &mut Vec<f64>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| flat(value, out)),
            number => out.push(number.as_f64().unwrap()),
        }
    }
    let mut expected = Vec::new();
    flat(&golden["output"], &mut expected);
    let files = ModelFiles::open(&data().join("bert").join(scheme)).unwrap();
    let room = Room { context: None, sequences: 2, memory: None };
    let mut model = Model::load(&files, backend, room).unwrap();
    assert!(model.is_encoder());
    let mut sequences = [(); 2].map(|()| Sequence::default());
    let feed = |(sequence, tokens): (_, _)| Feed { sequence, tokens, call: 0..0, drafts: 0, pick: Pick::All };
    let pairs = sequences.iter_mut().zip(texts.iter().map(Vec::as_slice));
    let mut feeds: Vec<Feed<'_>> = pairs.map(feed).collect();
    let found = model.forward(&mut feeds, Want::Hidden).unwrap().hidden.clone();
    (texts, found, expected)
}

#[test]
fn an_encoder_agrees_with_mlc() {
    for scheme in ["q0f32", "q4f32_1"] {
        let far = |backend: &dyn Backend| {
            let (_, found, expected) = encoded(scheme, backend);
            assert_eq!(found.len(), expected.len());
            let differences = found.iter().zip(&expected).map(|(a, b)| f64::from(*a) - b);
            let square = differences.clone().map(|d| d * d).sum::<f64>();
            let of = expected.iter().map(|x| x * x).sum::<f64>();
            let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            (differences.fold(0.0f64, |m, d| m.max(d.abs())) / largest, (square / of).sqrt())
        };
        let (reference, cpu) = (far(&Reference).0, far(&Cpu::default()).1);
        println!("bert/{scheme}: {reference:.1e} of the largest, {cpu:.1e} of all");
        assert!(reference < REFERENCE && cpu < CPU, "{scheme}: {reference:e}, {cpu:e}");
    }
}

/// A text gives the same bits whatever is beside it and however many of its rows are wanted; half a text is no text, and
/// there is no next token.
#[test]
fn an_encoder_takes_a_text_at_once() {
    let files = ModelFiles::open(&data().join("bert/q4f32_1")).unwrap();
    let room = Room { context: None, sequences: 2, memory: None };
    let mut model = Model::load(&files, &Cpu { threads: 2, ..Cpu::default() }, room).unwrap();
    let (texts, together, _) = encoded("q4f32_1", &Cpu { threads: 2, ..Cpu::default() });
    let width = model.config.hidden_size;
    for (i, text) in texts.iter().enumerate() {
        let mut sequence = Sequence::default();
        let rows = &together[i * text.len() * width..][..text.len() * width];
        for (pick, expected) in
            [(Pick::First, &rows[..width]), (Pick::Last, &rows[rows.len() - width..]), (Pick::All, rows)]
        {
            let feed = Feed { sequence: &mut sequence, tokens: text, call: 0..0, drafts: 0, pick };
            assert_eq!(model.forward(&mut [feed], Want::Hidden).unwrap().hidden, expected);
            model.release(std::mem::take(&mut sequence));
        }
    }
    let mut sequence = Sequence::default();
    let mut feed = |tokens, want| {
        let feed = Feed { sequence: &mut sequence, tokens, call: 0..0, drafts: 0, pick: Pick::Last };
        model.forward(&mut [feed], want).map(|out| out.hidden.len()).map_err(|e| e.to_string())
    };
    assert_eq!(
        feed(&[1, 2], Want::Logits).unwrap_err(),
        "the program ends in a hidden state, logits were asked for"
    );
    assert_eq!(feed(&[1, 2], Want::Hidden), Ok(width));
    let half = "span 0 begins at position 2, every token of this model sees all of its sequence";
    assert_eq!(feed(&[3], Want::Hidden).unwrap_err(), half);
}

/// A manifest and a config are enough for a program of any family that checks, plans and prints; each of its weights then
/// comes from the folder as it is described.
#[test]
fn a_program_needs_no_bytes() {
    let mut folders: Vec<PathBuf> = cases().into_iter().map(|case| case.folder).collect();
    folders.dedup();
    for folder in folders {
        let files = ModelFiles::open(&folder).unwrap();
        let named = MANIFEST_NAMES.iter().map(|name| folder.join(name)).find(|path| path.exists()).unwrap();
        let manifest = Manifest::parse(&std::fs::read(named).unwrap()).unwrap();
        for semantics in [Semantics::Authors, Semantics::Mlc] {
            let p = program(&manifest, &files.config, files.scheme, semantics).unwrap();
            p.check().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            assert!(Cpu::default().workspace_len(&p, 8) > 0);
            let (printed, mut source) = (p.to_string(), FolderWeights(&files.folder));
            for weight in &p.weights {
                assert!(printed.contains(&weight.name), "{printed}");
                weight.of(&mut source).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            }
            for vector in &p.vectors {
                vector.of(&mut source).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            }
        }
    }
}

#[test]
fn a_folder_says_which_weight_it_has_otherwise() {
    let files = ModelFiles::open(&data().join("gemma3_text/q4f32_1")).unwrap();
    let manifest = files.folder.manifest();
    let p = program(manifest, &files.config, files.scheme, Semantics::Authors).unwrap();
    let mut source = FolderWeights(&files.folder);
    let mut weight = p.weights.iter().find(|w| w.name.contains("down_proj")).unwrap().clone();
    assert_eq!(weight.made, Made::Stored);
    weight.rows += 1;
    let error = source.matrix(&weight).unwrap_err().to_string();
    let tensor = weight.name.replace(".weight", ".q_weight");
    let start =
        format!("{} could not be read: tensor {tensor}: expected shape [{}, ", weight.name, weight.rows);
    assert!(error.starts_with(&start) && error.contains(&format!("found [{}, ", weight.rows - 1)), "{error}");
    let Some(Vector::Parameter(norm)) = p.vectors.first() else { panic!("a norm comes first") };
    let mut other = norm.clone();
    other.shape[0] = 7;
    let (error, name) = (source.vector(&other).unwrap_err().to_string(), &norm.name);
    let said = format!("tensor {name}: expected shape [7], found {:?}", norm.shape);
    assert_eq!(error, format!("{name} could not be read: {said}"));
}

/// What a driver without a thread to wait does gives what `forward` gives.
#[test]
fn a_step_may_be_planned_made_and_committed_apart() {
    let files = ModelFiles::open(&data().join("gemma3_text/q4f32_1")).unwrap();
    let room = Room { context: None, sequences: 2, memory: None };
    let mut model = Model::load(&files, &Cpu::default(), room).unwrap();
    let tokens: Vec<u32> = (0..70).map(|i| i * 11 % 131).collect();
    let (mut a, mut b) = (Sequence::default(), Sequence::default());
    fn feed<'a>(sequence: &'a mut Sequence, tokens: &'a [u32]) -> [Feed<'a>; 1] {
        [Feed { sequence, tokens, call: 0..70, drafts: 0, pick: Pick::Last }]
    }
    let mut cx = Context::from_waker(Waker::noop());
    for tokens in tokens.chunks(40) {
        let expected = model.forward(&mut feed(&mut a, tokens), Want::Logits).unwrap().logits.clone();
        let step = model.plan(&mut feed(&mut b, tokens), Want::Logits).unwrap();
        let held = b.tokens.len();
        model.begin_step(step).unwrap();
        assert_eq!(model.poll(&mut cx), Poll::Ready(Ok(())));
        assert_eq!(b.tokens.len(), held);
        assert_eq!(model.commit(&mut feed(&mut b, tokens)).unwrap().logits, expected);
    }
    assert_eq!(b.tokens, tokens);
}
