use std::ops::ControlFlow;
use std::path::Path;
use tessera_engine::calibrate::{Calibration, calibrate};
use tessera_engine::open::ModelFiles;
use tessera_weights::convert::{ConvertOptions, MlcSource, Rounding, SourceNames, convert};
use tessera_weights::model::Description;
use tessera_weights::scheme::Scheme;

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (src, dst, quant, text, seqs, len): (_, _, _, _, usize, usize) =
        (&a[1], &a[2], &a[3], &a[4], a[5].parse().unwrap(), a[6].parse().unwrap());
    let files = ModelFiles::open(Path::new(src)).unwrap();
    let scheme = Scheme::find(quant).unwrap();
    let found = Description::of_folder(&files.folder).model.unwrap();
    let mut extra: Vec<(String, Vec<u8>)> = ["tokenizer.json", "tokenizer_config.json"]
        .iter()
        .filter_map(|n| Some((n.to_string(), std::fs::read(Path::new(src).join(n)).ok()?)))
        .collect();
    let chat = std::fs::read_to_string(Path::new(src).join("mlc-chat-config.json")).unwrap();
    let chat = chat.replace("\"q0f32\"", &format!("\"{quant}\""));
    extra.push(("mlc-chat-config.json".into(), chat.into_bytes()));
    let lines = std::fs::read_to_string(text).unwrap();
    let texts: Vec<Vec<u32>> = lines
        .lines()
        .take(seqs)
        .map(|l| l.split(' ').take(len).map(|t| t.parse().unwrap()).collect())
        .collect();
    let begun = std::time::Instant::now();
    let mut last = std::time::Instant::now();
    let of = Calibration { files: &files, scheme, params: &found.params, texts: &texts };
    let codes = calibrate(of, &mut |p| {
        if last.elapsed().as_secs() > 20 {
            eprintln!("{}/{} {:.0}", p.done, p.total, begun.elapsed().as_secs_f64());
            last = std::time::Instant::now();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let source = MlcSource::new(&files.folder, &found).unwrap();
    let options =
        ConvertOptions { names: SourceNames::Mlc, rounding: Rounding::Found(&codes), ..Default::default() };
    let _ = std::fs::remove_dir_all(dst);
    convert(&source, &found.params, scheme, &options, Path::new(dst), &extra).unwrap();
}
