//! Every kernel through naga's validator and its writers for Vulkan, Metal and DX12: no adapter is needed.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use tessera_compute::program::Function;
use tessera_gpu::kernels::{self, Attention, COLUMNS, Each};
use tessera_gpu::product::Product;
use tessera_weights::arch::{Experts, Groups, Score};
use tessera_weights::config::Activation;
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::Form;

fn forms() -> Vec<Form> {
    let mut out: Vec<Form> = [DType::F32, DType::F16, DType::BF16].map(Form::Dense).to_vec();
    for format in [GroupFormat::INT4, GroupFormat::INT3] {
        for layout in [Layout::Nk, Layout::Kn] {
            for scale in [DType::F32, DType::F16, DType::BF16] {
                out.push(Form::Grouped { format, layout, scale });
            }
        }
    }
    out
}

fn texts() -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut add = |name: String, text: String| out.push((name, text));
    for form in forms() {
        add(format!("embed {form}"), kernels::embed(form));
        add(format!("expert {form}"), kernels::expert(form, 2));
        for (columns, rows) in COLUMNS.into_iter().flat_map(|c| [(c, 1), (c, 2), (c, 4)]) {
            for (fours, tail) in [(true, false), (true, true), (false, false), (false, true)] {
                let (norm, gate) = (false, None);
                let product = Product { form, columns, rows, fours, tail, norm, gate, staged: false };
                add(format!("{product:?}"), product.text());
            }
        }
        for (columns, rows, staged) in
            [(1, 2, false), (2, 1, false), (4, 1, false), (8, 1, false), (8, 2, true)]
        {
            for (norm, gate) in
                [(true, None), (false, Some(Activation::Silu)), (true, Some(Activation::GeluTanh))]
            {
                let product = Product { form, columns, rows, fours: true, tail: false, norm, gate, staged };
                add(format!("{product:?}"), product.text());
            }
        }
        for (fours, tail) in [(true, false), (true, true), (false, false), (false, true)] {
            let (norm, gate, staged) = (false, None, true);
            let product = Product { form, columns: 8, rows: 4, fours, tail, norm, gate, staged };
            add(format!("{product:?}"), product.text());
        }
    }
    for (dim, turned) in [(64, 64), (96, 32), (576, 64), (16, 0)] {
        for (neighbours, halves, sinks) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, false)]
        {
            let attention = Attention { dim, turned, neighbours, halves, sinks };
            add(format!("append {attention:?}"), attention.append());
            add(format!("attend {attention:?}"), attention.attend(false));
            add(format!("attend split {attention:?}"), attention.attend(true));
            add(format!("merge {attention:?}"), attention.merge());
        }
    }
    let mut each =
        vec![Each::Copy, Each::Add, Each::BlendColumns, Each::BlendEach, Each::ByPosition, Each::ByCall];
    each.extend(Activation::EACH.map(Each::Gate));
    each.extend(Activation::EACH.map(|a| Each::Map(Function::Activation(a))));
    each.extend([Function::Scale(0.1), Function::Cap(30.0), Function::Clip(8.0)].map(Each::Map));
    for op in each {
        for shares in [[false; 3], [true, false, false], [false, true, true], [true; 3]] {
            add(format!("{op:?} {shares:?}"), kernels::each(op, shares));
        }
    }
    for (layer, shares) in [(true, true), (true, false), (false, true), (false, false)] {
        add(format!("norm {layer} {shares}"), kernels::norm(layer, shares));
    }
    let plain = Experts {
        count: 8,
        width: 8,
        top_k: 2,
        score: Score::Softmax,
        renormalise: true,
        scale: 1.0,
        groups: None,
        on_input: false,
    };
    let groups = Some(Groups { count: 4, kept: 2, two_best: true });
    add("route".to_owned(), kernels::route(&plain));
    add("route in groups".to_owned(), kernels::route(&Experts { groups, score: Score::Sigmoid, ..plain }));
    add("conv".to_owned(), kernels::conv(4, Some(Activation::Silu)));
    add("delta".to_owned(), kernels::delta([2, 4, 16, 16]));
    add("wkv".to_owned(), kernels::wkv(64));
    add("states".to_owned(), kernels::states());
    add("argmax".to_owned(), kernels::argmax());
    add("copy".to_owned(), kernels::copy());
    add("copy page".to_owned(), kernels::copy_page());
    add("experts' list".to_owned(), kernels::experts_list(8, 2));
    add("experts' gate".to_owned(), kernels::experts_gate(Activation::Silu, 2));
    add("experts' sum".to_owned(), kernels::experts_sum(2));
    out
}

#[test]
fn every_text_is_valid_and_every_writer_takes_it() {
    let texts = texts();
    for (name, text) in &texts {
        let fail = |what: String| -> ! { panic!("{name}: {what}\n{text}") };
        let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| fail(e.emit_to_string(text)));
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32);
        let info = validator.validate(&module).unwrap_or_else(|e| fail(format!("{e:?}")));
        let words = spv::write_vec(&module, &info, &spv::Options::default(), None);
        assert!(words.unwrap_or_else(|e| fail(e.to_string())).len() > 100);
        let options =
            msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        if let Err(e) = msl::write_string(&module, &info, &options, &Default::default()) {
            fail(e.to_string());
        }
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_0,
            fake_missing_bindings: true,
            ..Default::default()
        };
        let (mut written, pipeline) = (String::new(), hlsl::PipelineOptions::default());
        if let Err(e) = hlsl::Writer::new(&mut written, &options, &pipeline).write(&module, &info, None) {
            fail(e.to_string());
        }
        // What WebGPU promises of every adapter.
        let storage = module
            .global_variables
            .iter()
            .filter(|(_, v)| matches!(v.space, naga::AddressSpace::Storage { .. }));
        assert!(storage.count() <= 8, "{name} has more than eight storage buffers");
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
        let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
        assert!(bytes <= 16 << 10, "{name} takes {bytes} bytes of a workgroup's memory");
    }
    assert!(texts.len() > 200);
}

/// For `scripts/check-tint`: all of them, as JSON, into the file that TESSERA_WGSL names.
#[test]
fn texts_are_written() {
    let Some(file) = std::env::var_os("TESSERA_WGSL") else { return };
    std::fs::write(file, serde_json::to_vec(&texts()).unwrap()).unwrap();
}
