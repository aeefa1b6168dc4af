//! What sampling settings may be: one table for the command line, the server, the defaults of a folder and
//! the settings of a checkpoint that is converted.

use super::SampleError;

/// A setting and the numbers that it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Its name, in every file and request.
    pub field: &'static str,
    /// From this on.
    pub low: f32,
    /// Up to this.
    pub high: f32,
    /// The same in words.
    pub expected: &'static str,
    /// What OpenAI's interface allows of it, and so the server.
    pub openai: (f64, f64),
}

const fn range(field: &'static str, low: f32, high: f32, expected: &'static str) -> Range {
    Range { field, low, high, expected, openai: (low as f64, high as f64) }
}

impl Range {
    const fn openai(self, low: f64, high: f64) -> Range {
        Range { openai: (low, high), ..self }
    }

    /// Whether `value` lies inside; a NaN does not.
    pub fn check(&self, value: f32) -> Result<(), SampleError> {
        if value >= self.low && value <= self.high {
            return Ok(());
        }
        Err(SampleError::Param { field: self.field, expected: self.expected, found: value })
    }
}

/// 0 takes the largest logit.
pub const TEMPERATURE: Range = range("temperature", 0.0, 100.0, "0 to 100").openai(0.0, 2.0);
/// 0 keeps the likeliest token alone, which is what the smallest number above it does.
pub const TOP_P: Range = range("top_p", 0.0, 1.0, "0 to 1");
/// 0 keeps all.
pub const MIN_P: Range = range("min_p", 0.0, 1.0, "0 to 1");
/// 1 does nothing.
pub const REPETITION_PENALTY: Range =
    range("repetition_penalty", 1e-3, 1e3, "0.001 to 1000").openai(1e-3, 1e3);
/// 0 does nothing.
pub const FREQUENCY_PENALTY: Range =
    range("frequency_penalty", -100.0, 100.0, "-100 to 100").openai(-2.0, 2.0);
/// 0 does nothing.
pub const PRESENCE_PENALTY: Range = range("presence_penalty", -100.0, 100.0, "-100 to 100").openai(-2.0, 2.0);
/// Of each token.
pub const LOGIT_BIAS: Range = range("logit_bias", -1e4, 1e4, "-10000 to 10000").openai(-100.0, 100.0);

/// Those that a folder or a checkpoint may state.
pub const DEFAULTS: [Range; 5] =
    [TEMPERATURE, TOP_P, REPETITION_PENALTY, FREQUENCY_PENALTY, PRESENCE_PENALTY];
