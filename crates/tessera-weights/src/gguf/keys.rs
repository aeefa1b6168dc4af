//! The keys of one architecture, under its own name.

use super::error::GgufError;
use super::family::Family;
use super::header::Gguf;
use super::rope::decimal;
use super::value::required;

/// A file with the family that it is of.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub gguf: &'a Gguf,
    pub family: &'static Family,
}

impl<'a> Keys<'a> {
    /// The family that `general.architecture` names.
    pub fn of(gguf: &'a Gguf) -> Result<Keys<'a>, GgufError> {
        let key = "general.architecture";
        let arch = required(gguf.meta_str(key)?, key)?;
        match Family::of_arch(arch) {
            Some(family) => Ok(Keys { gguf, family }),
            None => Err(bad(
                key,
                format!("{arch:?}"),
                format!("only {} are supported; convert the original checkpoint", Family::known()),
            )),
        }
    }

    /// The whole key.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.arch)
    }

    pub fn u32(&self, name: &str) -> Result<Option<u32>, GgufError> {
        self.gguf.meta_u32(&self.key(name))
    }

    /// An integer that may be given once for each layer.
    pub fn uniform(&self, name: &str) -> Result<Option<u32>, GgufError> {
        self.gguf.meta_u32_uniform(&self.key(name))
    }

    /// The decimal that was meant.
    pub fn number(&self, name: &str) -> Result<Option<f64>, GgufError> {
        Ok(self.gguf.meta_f32(&self.key(name))?.map(decimal))
    }

    pub fn str(&self, name: &str) -> Result<Option<&'a str>, GgufError> {
        self.gguf.meta_str(&self.key(name))
    }

    /// An integer, which must be there and positive.
    pub fn positive(&self, name: &str) -> Result<u32, GgufError> {
        match required(self.uniform(name)?, &self.key(name))? {
            0 => Err(self.bad(name, 0, "it must be positive".to_string())),
            v => Ok(v),
        }
    }

    /// A decimal, which must be there.
    pub fn need(&self, name: &str) -> Result<f64, GgufError> {
        required(self.number(name)?, &self.key(name))
    }

    pub fn bad(&self, name: &str, found: impl ToString, what: String) -> GgufError {
        bad(&self.key(name), found, what)
    }

    /// Whether any of these tensors of the first layer has a bias.
    pub fn any_bias(&self, modules: &[&str]) -> bool {
        modules.iter().any(|m| self.gguf.tensor(&format!("blk.0.{m}.bias")).is_some())
    }
}

pub(super) fn bad(key: &str, found: impl ToString, what: String) -> GgufError {
    GgufError::BadValue { key: key.to_string(), found: found.to_string(), what }
}
