//! Inverted index: the words of documents with the documents that hold them (OSDI 2004, section 2.3).

use super::Words;
use super::text::put_name;
use crate::app::{App, Chunk, Emit, Output, Shuffle, Values};

/// List the documents in which each word occurs
///
/// A document is an input file. Prints word, TAB, and the names of its documents in order, separated by commas; commas,
/// percent signs and control characters in names are written as %XX.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Index {
    /// Numbers for documents, in the order of their sorted names; the names are in the file _documents of the output,
    /// which therefore must be a folder (-o)
    #[arg(long)]
    pub ids: bool,
    /// What a word is
    #[command(flatten)]
    pub words: Words,
}

impl App for Index {
    type Value = u32;
    const SHUFFLE: Shuffle = Shuffle::Group;

    #[inline]
    fn map<E: Emit<u32>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let document = chunk.input();
        self.words.each(chunk, |word| out.emit(word, document));
    }

    #[inline]
    fn combine(&self, last: &mut u32, document: u32) -> bool {
        *last == document
    }

    fn reduce<V: Values<u32>>(&self, word: &[u8], documents: &mut V, out: &mut Output<'_>) {
        out.put(word);
        let (mut separator, mut last) = (b"\t", None);
        for document in documents.iter() {
            if last.replace(document) == Some(document) {
                continue;
            }
            out.put(separator);
            separator = b",";
            if self.ids {
                out.number(u64::from(document));
            } else {
                put_name(out.input_name(document).as_bytes(), |text| out.put(text));
            }
        }
        out.put(b"\n");
        out.end();
    }

    fn extra_files(&self, inputs: &[String]) -> Vec<(String, Vec<u8>)> {
        if !self.ids {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for (id, name) in inputs.iter().enumerate() {
            lines.extend_from_slice(format!("{id}\t").as_bytes());
            put_name(name.as_bytes(), |text| lines.extend_from_slice(text));
            lines.push(b'\n');
        }
        vec![("_documents".into(), lines)]
    }
}
