//! Messages that a chat template left out of the prompt.

use tessera_engine::template::Message;

/// A message is looked for behind the one before it; in the whole prompt only so often, since a prompt may be
/// as long as a body, and have as many messages as a body has room for.
const WHOLE_SEARCHES: usize = 32;

/// What became of messages in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// This one's text is not there.
    Left(usize),
    /// Too many come in another order to look for each; this is the first that was not looked for.
    Unordered(usize),
}

/// The first message of a user, or with instructions, whose text is not in the prompt. Instructions that a
/// template gathers in one place keep their order among themselves, so each kind is walked along by itself, and
/// the whole takes time in proportion to the prompt.
pub fn find(prompt: &str, messages: &[Message]) -> Option<Lost> {
    let (mut user_at, mut instructions_at, mut searches) = (0, 0, 0);
    for (i, message) in messages.iter().enumerate() {
        let at = match message.role.as_str() {
            "user" => &mut user_at,
            "system" | "developer" => &mut instructions_at,
            _ => continue,
        };
        let content = message.content.as_deref().unwrap_or_default().trim();
        if let Some(found) = prompt[*at..].find(content) {
            *at += found + content.len();
            continue;
        }
        searches += 1;
        if searches > WHOLE_SEARCHES {
            return Some(Lost::Unordered(i));
        }
        match prompt.find(content) {
            Some(found) => *at = found + content.len(),
            None => return Some(Lost::Left(i)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn messages(list: &[(&str, &str)]) -> Vec<Message> {
        list.iter().map(|(role, text)| Message::new(*role, *text)).collect()
    }

    #[test]
    fn a_text_that_is_not_there_is_found_out() {
        let all =
            messages(&[("system", "S "), ("user", "A"), ("assistant", "not looked for"), ("user", "B")]);
        assert_eq!(find("<s>S<u>A<a>x<u>B", &all), None);
        assert_eq!(find("<s>S<u>A<a>x<u>", &all), Some(Lost::Left(3)));
        assert_eq!(find("<u>A<a>x<u>B", &all), Some(Lost::Left(0)));
    }

    #[test]
    fn instructions_may_be_gathered_and_messages_may_be_moved() {
        let all = messages(&[("user", "A"), ("system", "S"), ("user", "B"), ("developer", "T")]);
        assert_eq!(find("S T A B", &all), None);
        assert_eq!(find("A B S T", &all), None);
        assert_eq!(find("T S B A", &all), None);
        let back: Vec<_> = (0..100).map(|i| Message::new("user", format!("<{i}>"))).collect();
        let prompt: String = (0..100).rev().map(|i| format!("<{i}>")).collect();
        assert_eq!(find(&prompt, &back), Some(Lost::Unordered(WHOLE_SEARCHES + 1)));
    }

    /// Before: 18 s and more.
    #[test]
    fn ten_thousand_messages_take_one_walk() {
        let (mut prompt, mut system) = (String::new(), String::new());
        let mut all = Vec::new();
        for i in 0..10_000 {
            let text = format!("{i} {}", "word ".repeat(80));
            match i % 2 {
                0 => prompt.push_str(&text),
                _ => system.push_str(&text),
            }
            all.push(Message::new(if i % 2 == 0 { "user" } else { "system" }, text));
        }
        let begun = Instant::now();
        assert_eq!(find(&(system + &prompt), &all), None);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
