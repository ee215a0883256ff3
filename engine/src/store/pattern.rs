//! Which objects a pattern names: a glob, one object, or all below a folder.

use globset::{GlobBuilder, GlobMatcher};

use super::{Error, Kind, Name};

/// What makes a pattern a glob.
const SPECIAL: [char; 4] = ['*', '?', '[', '{'];

/// A glob if it has one of `*?[{`, where `*` and `?` stay within a part of the name and `**` does not; else the name of an
/// object or a folder, with or without a slash at its end. Empty: everything.
#[derive(Clone, Debug)]
pub struct Pattern {
    prefix: String,
    matcher: Option<GlobMatcher>,
    name: String,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Kind::Denied`] when it is none.
    pub fn new(text: &str) -> Result<Self, Error> {
        if let Some(at) = text.find(SPECIAL) {
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            let glob = glob.map_err(|e| Error::new(Kind::Denied, format!("'{text}' is no pattern: {e}")))?;
            let prefix = text[..at].rfind('/').map_or("", |slash| &text[..=slash]).to_string();
            return Ok(Self { prefix, matcher: Some(glob.compile_matcher()), name: String::new() });
        }
        let name = text.trim_end_matches('/').to_string();
        if !name.is_empty() {
            Name::new(name.as_str())?;
        }
        // `a/` names what is below it, never an object.
        let prefix = if text.ends_with('/') { format!("{name}/") } else { name.clone() };
        Ok(Self { prefix, matcher: None, name })
    }

    /// What all names begin with that it matches.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is one with special characters.
    pub fn is_glob(&self) -> bool {
        self.matcher.is_some()
    }

    /// Whether it names this one as an input: as a listing of a folder, it passes over what has a component that begins with
    /// '_' or '.' below the folder.
    pub fn names_input(&self, name: &Name) -> bool {
        let hidden = |below: &str| below.split('/').any(|part| part.starts_with(['_', '.']));
        self.matches(name) && !hidden(&name.as_str()[self.prefix.len()..])
    }

    /// Whether it names this one.
    pub fn matches(&self, name: &Name) -> bool {
        let name = name.as_str();
        match &self.matcher {
            Some(matcher) => matcher.is_match(name),
            None => {
                let rest = name.strip_prefix(&self.name);
                name.starts_with(&self.prefix)
                    && (self.name.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_objects_folders_or_what_matches() {
        for (pattern, prefix, yes, no) in [
            ("", "", vec!["a", "a/b"], vec![]),
            ("a", "a", vec!["a", "a/b"], vec!["ab", "b"]),
            ("a/", "a/", vec!["a/b", "a/b/c"], vec!["a", "ab"]),
            ("a/*.txt", "a/", vec!["a/x.txt"], vec!["a/b/x.txt", "a/x.gz"]),
            ("a/**/x", "a/", vec!["a/b/x", "a/b/c/x"], vec!["b/x"]),
            ("lo?s-[0-9]", "", vec!["logs-1"], vec!["logs-a", "x/logs-1"]),
            ("{a,b}/c", "", vec!["a/c", "b/c"], vec!["c/c"]),
        ] {
            let found = Pattern::new(pattern).unwrap();
            assert_eq!(found.prefix(), prefix, "{pattern}");
            let matches = |name: &&str| found.matches(&Name::new(*name).unwrap());
            assert!(yes.iter().all(matches) && !no.iter().any(matches), "{pattern}");
        }
        for bad in ["a//b", "../a", "/a", "a[", "a\n"] {
            assert_eq!(Pattern::new(bad).unwrap_err().kind, Kind::Denied, "{bad}");
        }
    }
}
