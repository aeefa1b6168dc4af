//! The calls of an answer, and what is told of them.

use super::{CallIds, Tool};

/// What a stream of text contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text of the answer.
    Text {
        /// The text.
        text: String,
        /// Whether it looked like a tool call and is none: broken JSON, an unknown name, no end.
        malformed: bool,
    },
    /// A call begins.
    Start {
        /// Its index in the answer.
        index: usize,
        /// Its id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// Some of a call's arguments: pieces of one JSON object.
    Arguments {
        /// The call's index.
        index: usize,
        /// The next piece.
        text: String,
    },
    /// A call ends.
    End {
        /// The call's index.
        index: usize,
        /// Whether its arguments are whole. If not, what follows the break is malformed text.
        complete: bool,
    },
}

/// The calls of an answer so far.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    tools: Vec<Tool>,
    ids: CallIds,
    begun: usize,
    /// Whether the newest has not ended.
    open: bool,
}

impl Calls {
    /// None so far.
    pub fn new(tools: Vec<Tool>, ids: CallIds) -> Calls {
        Calls { tools, ids, begun: 0, open: false }
    }

    /// The tool of a name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// How many were begun.
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// Whether none was begun.
    pub fn none(&self) -> bool {
        self.begun == 0
    }

    pub fn start(&mut self, name: &str, out: &mut Vec<ToolEvent>) {
        let (index, id) = (self.begun, self.ids.next_id());
        out.push(ToolEvent::Start { index, id, name: name.to_owned() });
        self.begun += 1;
        self.open = true;
    }

    pub fn argument(&self, piece: &str, out: &mut Vec<ToolEvent>) {
        match out.last_mut() {
            Some(ToolEvent::Arguments { text, .. }) => text.push_str(piece),
            _ => {
                out.push(ToolEvent::Arguments { index: self.begun.saturating_sub(1), text: piece.to_owned() })
            }
        }
    }

    /// Ends the call that is open.
    pub fn end(&mut self, complete: bool, out: &mut Vec<ToolEvent>) {
        if std::mem::take(&mut self.open) {
            out.push(ToolEvent::End { index: self.begun.saturating_sub(1), complete });
        }
    }
}

/// Lets go of held text until its rest may be a mark, which is given when it is whole; white space goes with
/// what comes after it.
pub(super) fn search(
    held: &mut String,
    marks: &[&'static str],
    out: &mut Vec<ToolEvent>,
) -> Option<&'static str> {
    while !held.is_empty() {
        let seen = held.trim_start();
        if marks.iter().any(|mark| mark.starts_with(seen)) {
            return marks.iter().find(|mark| **mark == seen).copied();
        }
        let len = held.chars().next().map_or(0, char::len_utf8);
        let first: String = held.drain(..len).collect();
        text(out, &first, false);
    }
    None
}

pub(super) fn text(out: &mut Vec<ToolEvent>, piece: &str, flag: bool) {
    if piece.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(ToolEvent::Text { text, malformed }) if *malformed == flag => text.push_str(piece),
        _ => out.push(ToolEvent::Text { text: piece.to_owned(), malformed: flag }),
    }
}
