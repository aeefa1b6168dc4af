//! What will be written, decided from names and shapes.

use std::collections::{BTreeSet, HashMap};

use super::layout::{Shard, pack};
use super::write::{self, Flavour, Metadata};
use super::{ConvertError, ConvertOptions, SourceNames};
use crate::arch::{self, Combine, Param, StoredTensor};
use crate::dtype::{DType, Encoding};
use crate::scheme::Scheme;
use crate::source::{SourceError, SourceTensor, TensorSource, Values};

/// A parameter and the source tensors that it is made from.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "fs"), allow(dead_code))] // only a run reads them
pub(super) struct Step {
    pub param: Param,
    /// Positions in [`TensorSource::tensors`].
    pub sources: Vec<usize>,
    /// What is written of it.
    pub stored: Vec<StoredTensor>,
}

/// A conversion, decided but not run.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "fs"), allow(dead_code))]
pub struct Plan {
    pub(super) scheme: &'static Scheme,
    pub(super) steps: Vec<Step>,
    /// The shards with their tensors.
    pub shards: Vec<Shard>,
    /// The manifest's numbers.
    pub metadata: Metadata,
    /// Tensors of the checkpoint that no parameter is made from.
    pub unused: Vec<String>,
}

impl Plan {
    /// Plans the conversion of `source` to the parameters of an architecture.
    pub fn new(
        source: &dyn TensorSource,
        params: &[Param],
        scheme: &'static Scheme,
        options: &ConvertOptions<'_>,
    ) -> Result<Plan, ConvertError> {
        if options.shard_cap == 0 {
            return Err(ConvertError::BadCap { found: 0 });
        }
        let tensors = source.tensors();
        let params: Vec<Param> = match options.names {
            SourceNames::Hf => params.to_vec(),
            SourceNames::Mlc => params.iter().cloned().map(Param::from_itself).collect(),
        };
        let mut place: HashMap<&str, usize> = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if let Some(first) = place.insert(&tensor.name, i) {
                return Err(ConvertError::Twice {
                    tensor: tensor.name.clone(),
                    first: source.file(first).to_owned(),
                    second: source.file(i).to_owned(),
                });
            }
        }
        let needed = params
            .iter()
            .map(|param| find_sources(source, &place, param))
            .collect::<Result<Vec<Vec<usize>>, ConvertError>>()?;

        // What each source tensor goes into. Copies come first: MLC's loader maps them before all else.
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); tensors.len()];
        let copies = |i: &usize| params[*i].combine.copies();
        let (first, then): (Vec<usize>, Vec<usize>) = (0..params.len()).partition(copies);
        for i in first.into_iter().chain(then) {
            for &at in &needed[i] {
                users[at].push(i);
            }
        }
        let unused: Vec<usize> = (0..tensors.len()).filter(|&at| users[at].is_empty()).collect();
        let strange = |at: &usize| !arch::may_be_unused(&tensors[*at].name);
        let count = unused.iter().copied().filter(strange).count();
        if let Some(&at) = unused.iter().find(|at| strange(at))
            && !options.allow_unused
        {
            let (file, tensor) = (source.file(at).to_owned(), tensors[at].name.clone());
            return Err(ConvertError::Unused { file, count, tensor });
        }

        // Emission order: files as they first appear, their tensors in order, each with what it goes into.
        let files = Files::of(source);
        let mut emitted = vec![false; params.len()];
        let mut steps = Vec::with_capacity(params.len());
        for at in files.walk() {
            for &i in &users[at] {
                if !std::mem::replace(&mut emitted[i], true) {
                    let (mut param, mut stored) = (params[i].clone(), params[i].stored(scheme));
                    if let ([values], true) = (&mut *stored, options.whole_f32) {
                        values.encoding = Encoding::Raw;
                        // A sum rounded to the source's type, as MLC stores it, is not whole.
                        if param.combine == Combine::AddOne {
                            param.combine = Combine::AddOneWide;
                        }
                    }
                    steps.push(Step { param, sources: needed[i].clone(), stored });
                }
            }
        }
        let stored: Vec<StoredTensor> = steps.iter().flat_map(|s| s.stored.clone()).collect();
        let param_bytes: f64 = stored.iter().map(|t| t.numel() as f64 * t.dtype.size() as f64).sum();
        let elements = files.elements_loaded(tensors, &steps);
        let metadata = Metadata {
            param_size: stored.len(),
            param_bytes,
            bits_per_param: if elements > 0.0 { param_bytes * 8.0 / elements } else { 0.0 },
        };
        let shards = pack(stored, options.shard_cap)?;
        let unused = unused.into_iter().map(|at| tensors[at].name.clone()).collect();
        Ok(Plan { scheme, steps, shards, metadata, unused })
    }

    /// Bytes of all shards.
    pub fn total_bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.nbytes).sum()
    }

    /// Whether a second manifest is due: some float32 tensor is stored as bfloat16.
    pub fn has_b16(&self) -> bool {
        self.shards
            .iter()
            .flat_map(|s| &s.records)
            .any(|r| r.tensor.dtype == DType::F32 && r.tensor.encoding == Encoding::F32ToBf16)
    }

    /// A manifest's text; `md5` has one digest for each shard, `None` leaves the digests out.
    pub fn manifest(&self, md5: Option<&[String]>, flavour: Flavour) -> String {
        write::manifest(&self.metadata, &self.shards, md5, flavour)
    }
}

/// The manifest of a conversion from `config.json` alone: source tensors in module order, no digests.
pub fn plan_manifest(
    params: &[Param],
    scheme: &'static Scheme,
    options: &ConvertOptions<'_>,
) -> Result<String, ConvertError> {
    let mut seen = BTreeSet::new();
    let tensors = params
        .iter()
        .flat_map(|p| &p.sources)
        .filter(|s| seen.insert(s.name.as_str()))
        .map(|s| SourceTensor { name: s.name.clone(), dtype: DType::F32, shape: s.shape.clone() })
        .collect();
    Ok(Plan::new(&Listed(tensors), params, scheme, options)?.manifest(None, Flavour::Plain))
}

/// Names and shapes without values.
struct Listed(Vec<SourceTensor>);

impl TensorSource for Listed {
    fn tensors(&self) -> &[SourceTensor] {
        &self.0
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        Err(SourceError {
            file: self.file(index).to_owned(),
            tensor: self.0[index].name.clone(),
            what: "a dry run has no weights".to_owned(),
        })
    }
}

fn find_sources(
    source: &dyn TensorSource,
    place: &HashMap<&str, usize>,
    param: &Param,
) -> Result<Vec<usize>, ConvertError> {
    let find = |need: &arch::Source| {
        let alone = || need.alone.as_ref().and_then(|name| place.get(name.as_str()));
        let Some(&at) = place.get(need.name.as_str()).or_else(alone) else {
            let files: BTreeSet<&str> = (0..source.tensors().len()).map(|i| source.file(i)).collect();
            return Err(ConvertError::MissingTensor {
                param: param.name.clone(),
                tensor: need.name.clone(),
                file: match files.len() {
                    0 => "the checkpoint".to_owned(),
                    1..=3 => files.into_iter().collect::<Vec<_>>().join(", "),
                    n => format!("none of the {n} files"),
                },
            });
        };
        let found = &source.tensors()[at].shape;
        if *found != need.shape {
            return Err(ConvertError::WrongShape {
                file: source.file(at).to_owned(),
                tensor: need.name.clone(),
                expected: need.shape.clone(),
                found: found.clone(),
            });
        }
        Ok(at)
    };
    param.sources.iter().map(find).collect()
}

/// Which tensors lie in which file.
struct Files {
    /// Tensors of each file, files in order of first appearance.
    tensors: Vec<Vec<usize>>,
    /// File of each tensor.
    file: Vec<usize>,
}

impl Files {
    fn of(source: &dyn TensorSource) -> Files {
        let mut number: HashMap<&str, usize> = HashMap::new();
        let mut files = Files { tensors: Vec::new(), file: Vec::new() };
        for at in 0..source.tensors().len() {
            let file = *number.entry(source.file(at)).or_insert(files.tensors.len());
            if file == files.tensors.len() {
                files.tensors.push(Vec::new());
            }
            files.tensors[file].push(at);
            files.file.push(file);
        }
        files
    }

    fn walk(&self) -> impl Iterator<Item = usize> {
        self.tensors.iter().flatten().copied()
    }

    /// How many elements MLC's loader reads, for BitsPerParam. It loads whole files and drops those that
    /// a parameter does not need when it must load another, so that a file may be counted again.
    fn elements_loaded(&self, tensors: &[SourceTensor], steps: &[Step]) -> f64 {
        let counted = |at: &&usize| !tensors[**at].name.ends_with("rotary_emb.inv_freq");
        let numel = |at: &usize| tensors[*at].shape.iter().map(|&n| n as f64).product::<f64>();
        let mut loaded: BTreeSet<usize> = BTreeSet::new();
        let mut elements = 0.0;
        for step in steps {
            let needed: BTreeSet<usize> = step.sources.iter().map(|&at| self.file[at]).collect();
            if needed.is_subset(&loaded) {
                continue;
            }
            loaded.retain(|file| needed.contains(file));
            for file in needed {
                if loaded.insert(file) {
                    elements += self.tensors[file].iter().filter(counted).map(numel).sum::<f64>();
                }
            }
        }
        elements
    }
}
