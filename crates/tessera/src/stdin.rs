//! A text from stdin.

use crate::output::hinted;
use std::io::Read;

/// Longest text that is read.
const MAX_TEXT: u64 = 64 << 20;

/// All of it.
pub fn text() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(hinted(format!("stdin: more than {MAX_TEXT} bytes"), "give a shorter text"));
    }
    String::from_utf8(bytes).map_err(|e| {
        hinted(
            format!("stdin: not UTF-8 at byte {}", e.utf8_error().valid_up_to()),
            "convert the text to UTF-8",
        )
    })
}
