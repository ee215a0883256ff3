//! Words and how often they are there, as `gristmill run wordcount` counts them.

use std::collections::HashMap;

use gristmill_guest::{App, Pairs, Task, Values};

/// The words of a task.
struct WordCount {
    words: HashMap<Vec<u8>, u64>,
}

/// Words that are held at a time.
const MOST: usize = 100_000;

impl App for WordCount {
    fn begin(_: Task<'_>) -> Result<Self, String> {
        Ok(Self { words: HashMap::new() })
    }

    fn map(&mut self, records: &[u8], out: &mut Pairs) -> Result<(), String> {
        for word in records.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            match self.words.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    if self.words.len() >= MOST {
                        self.mapped(out)?;
                    }
                    self.words.insert(word.to_vec(), 1);
                }
            }
        }
        Ok(())
    }

    fn mapped(&mut self, out: &mut Pairs) -> Result<(), String> {
        gristmill_guest::count("wordcount", "handed on", self.words.len() as i64);
        self.words.drain().for_each(|(word, count)| out.push(&word, &count.to_le_bytes()));
        Ok(())
    }

    fn combine(&mut self, key: &[u8], values: Values<'_>, out: &mut Pairs) -> Result<(), String> {
        out.push(key, &sum(values)?.to_le_bytes());
        Ok(())
    }

    fn reduce(&mut self, key: &[u8], values: Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(key);
        out.extend_from_slice(format!("\t{}\n", sum(values)?).as_bytes());
        Ok(())
    }
}

fn sum(mut values: Values<'_>) -> Result<u64, String> {
    values.try_fold(0, |sum, value| {
        let count = value.try_into().map_err(|_| format!("a count of {} bytes", value.len()))?;
        Ok(sum + u64::from_le_bytes(count))
    })
}

gristmill_guest::export!(WordCount, combine);
