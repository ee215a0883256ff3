//! What a process writes on standard error: counters and status after a prefix, and words for people.

use std::collections::VecDeque;

use gristmill_engine::runner::Counters;

/// Bytes of a line that are kept; what follows is left out.
const LONGEST: usize = 4 << 10;
/// Last lines that are kept for the error.
const KEPT: usize = 20;
/// Lines that an attempt may have shown; later ones are only kept for the error.
const SHOWN: u64 = 1000;
/// Counters that an attempt may have.
const MOST_COUNTERS: usize = 1000;
/// Bytes of a counter's name.
const LONGEST_NAME: usize = 256;

/// What an attempt has said so far.
pub(crate) struct Said {
    prefix: String,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    pub(crate) counters: Counters,
    /// The last status that it told.
    pub(crate) status: Option<String>,
    pub(crate) words: VecDeque<String>,
    shown: u64,
}

impl Said {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            line: Vec::new(),
            counters: Counters::new(),
            status: None,
            words: VecDeque::new(),
            shown: 0,
        }
    }

    /// Begins anew.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(&std::mem::take(&mut self.prefix));
    }

    /// Hears bytes; `show` is called with lines that are for people.
    pub(crate) fn hear(&mut self, bytes: &[u8], show: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n' || *b == b'\r') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.end(show);
            }
        }
    }

    /// Takes the line that is there, whole or not.
    pub(crate) fn end(&mut self, show: &mut dyn FnMut(&str)) {
        if self.line.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        match line.strip_prefix(&self.prefix) {
            Some(told) if self.told(told) => {}
            _ => self.word(line, show),
        }
    }

    /// A counter or a status; `false` if it is neither.
    fn told(&mut self, told: &str) -> bool {
        if let Some(status) = told.strip_prefix("status:") {
            self.status = Some(status.to_string());
            return true;
        }
        let Some(counter) = told.strip_prefix("counter:") else { return false };
        let fields: Vec<&str> = counter.split(',').collect();
        let [group, name, amount] = fields[..] else { return false };
        let Ok(amount) = amount.trim().parse::<i64>() else { return false };
        let name: String = format!("{}:{}", group.trim(), name.trim()).chars().take(LONGEST_NAME).collect();
        if self.counters.len() < MOST_COUNTERS || self.counters.contains_key(&name) {
            let sum = self.counters.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
        true
    }

    fn word(&mut self, line: String, show: &mut dyn FnMut(&str)) {
        match self.shown {
            ..SHOWN => show(&line),
            SHOWN => show("it says more than is shown"),
            _ => {}
        }
        self.shown = self.shown.saturating_add(1);
        if self.words.len() == KEPT {
            self.words.pop_front();
        }
        self.words.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(pieces: &[&[u8]]) -> (Said, Vec<String>) {
        let (mut said, mut shown) = (Said::new("reporter:"), Vec::new());
        pieces.iter().for_each(|piece| said.hear(piece, &mut |line| shown.push(line.to_string())));
        said.end(&mut |line| shown.push(line.to_string()));
        (said, shown)
    }

    #[test]
    fn counters_and_status_are_no_words() {
        let text = b"reporter:counter:G,lines,2\nhello\nreporter:counter:G,lines,3\nreporter:counter:G,down,-7\n\
            reporter:status:half\nreporter:status:done\nlast";
        for size in [1, 3, text.len()] {
            let (said, shown) = hear(&text.chunks(size).collect::<Vec<_>>());
            assert_eq!(said.counters, [("G:lines".into(), 5), ("G:down".into(), -7)].into());
            assert_eq!(said.status.as_deref(), Some("done"));
            assert_eq!(shown, ["hello", "last"]);
        }
    }

    #[test]
    fn what_is_no_counter_is_a_word() {
        for line in ["reporter:counter:a,b", "reporter:counter:a,b,c,1", "reporter:counter:a,b,x", "reporter:other:1"] {
            let (said, shown) = hear(&[line.as_bytes(), b"\n"]);
            assert!(said.counters.is_empty());
            assert_eq!(shown, [line]);
        }
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let long = vec![b'x'; 1 << 20];
        let (said, shown) = hear(&[&long, b"\n"]);
        assert_eq!((shown[0].len(), said.words[0].len()), (LONGEST, LONGEST));
        let lines: Vec<u8> = (0..5000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let (said, shown) = hear(&[&lines]);
        assert_eq!((shown.len() as u64, said.words.len()), (SHOWN + 1, KEPT));
        assert_eq!(said.words.back().map(String::as_str), Some("line 4999"));
        let counters: Vec<u8> = (0..5000).flat_map(|i| format!("reporter:counter:g,{i},1\n").into_bytes()).collect();
        assert_eq!(hear(&[&counters]).0.counters.len(), MOST_COUNTERS);
    }
}
