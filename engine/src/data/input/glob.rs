//! Globs: where the walk for a pattern starts, which folders it may pass by, and what
//! the pattern matches. The matching itself is globset's.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::walk::{self, Entry};
use super::{Error, Listing, is_absent};

/// A pattern, cut at its longest prefix of literal folders.
pub(super) struct Glob {
    spec: PathBuf,
    /// Where the walk starts; empty for the current folder.
    root: PathBuf,
    matcher: GlobMatcher,
    /// For each level below the root, what a folder's name must match for the walk to
    /// enter it. Levels past the end are all entered if `deep`, else none is.
    levels: Vec<GlobMatcher>,
    deep: bool,
    /// Whether the pattern spells out a name's first `.` or `_`.
    dots: bool,
    underscores: bool,
}

impl Glob {
    /// The glob a spec stands for; `None` if it has no glob characters.
    pub(super) fn new(spec: &OsStr) -> Result<Option<Self>, Error> {
        if !spec.as_bytes().iter().any(|b| b"*?[{".contains(b)) {
            return Ok(None);
        }
        let (root, pattern) = cut(spec);
        let Some(pattern) = pattern.to_str() else {
            return Err(Error::PatternNotUtf8 { glob: spec.into() });
        };
        let pattern = &single_slashes(pattern);
        let compile = |text: &str| compile(text).map_err(|source| Error::Pattern { glob: spec.into(), source });
        let (folders, deep) = folder_patterns(pattern);
        Ok(Some(Self {
            spec: spec.into(),
            root: root.into(),
            matcher: compile(pattern)?,
            levels: folders.into_iter().map(compile).collect::<Result<_, _>>()?,
            deep,
            dots: spells_out(pattern, b'.'),
            underscores: spells_out(pattern, b'_'),
        }))
    }

    /// Appends all files the pattern stands for; an error if there are none.
    pub(super) fn list(&self, listing: &mut Listing) -> Result<(), Error> {
        let before = listing.inputs.len();
        let mut folders = vec![(self.root.clone(), 0)];
        while let Some((folder, level)) = folders.pop() {
            for entry in self.entries(&folder)? {
                if let Some(subfolder) = self.visit(&folder, &entry, level, listing)? {
                    folders.push((subfolder, level + 1));
                }
            }
        }
        if listing.inputs.len() == before {
            let glob = self.spec.clone();
            return Err(Error::NoMatch { glob });
        }
        Ok(())
    }

    /// The entries of a folder; none if the root itself is missing or no folder.
    fn entries(&self, folder: &Path) -> Result<Vec<DirEntry>, Error> {
        match walk::read_folder(folder) {
            Err(Error::Folder { source, .. }) if folder == self.root && is_absent(&source) => Ok(Vec::new()),
            entries => entries,
        }
    }

    /// Takes an entry that matches; gives a folder back that may hold further matches.
    fn visit(
        &self,
        folder: &Path,
        entry: &DirEntry,
        level: usize,
        listing: &mut Listing,
    ) -> Result<Option<PathBuf>, Error> {
        let name = entry.file_name();
        if self.hides(&name) {
            return Ok(None);
        }
        let path = folder.join(&name);
        // The root is a prefix of every path that was found by walking from it.
        let below = path.strip_prefix(&self.root).unwrap_or(&path);
        if !self.matcher.is_match(below) {
            let enters = self.enters(&name, level) && walk::is_folder(&path, entry);
            // Classified all the same: it may be a link that closes a loop.
            return match enters.then(|| walk::classify(&self.root, path, entry)) {
                Some(Ok(Entry::Folder(folder))) => Ok(Some(folder)),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => Ok(None),
            };
        }
        match walk::classify(&self.root, path, entry)? {
            Entry::File(input) => listing.inputs.push(input),
            // All that is below it is taken here, so that nothing matches twice.
            Entry::Folder(folder) => walk::list_below(&self.root, folder, listing)?,
            Entry::Other(path, kind) => return Err(Error::NotAFile { path, kind }),
        }
        Ok(None)
    }

    fn hides(&self, name: &OsStr) -> bool {
        match name.as_bytes().first() {
            Some(b'.') => !self.dots,
            Some(b'_') => !self.underscores,
            _ => false,
        }
    }

    fn enters(&self, name: &OsStr, level: usize) -> bool {
        self.levels.get(level).map_or(self.deep, |l| l.is_match(name))
    }
}

fn compile(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build()?;
    Ok(glob.compile_matcher())
}

/// Cuts a spec in front of the first component with a special character: the folder to
/// start from, without a slash at its end unless it is the root folder, and the pattern.
fn cut(spec: &OsStr) -> (&OsStr, &OsStr) {
    let bytes = spec.as_bytes();
    let special = bytes.iter().position(|b| b"*?[{\\".contains(b));
    let literal = &bytes[..special.unwrap_or(bytes.len())];
    let Some(slash) = literal.iter().rposition(|&b| b == b'/') else {
        return (OsStr::new(""), spec);
    };
    let root = literal[..slash].iter().rposition(|&b| b != b'/').map_or(1, |at| at + 1);
    let (root, pattern) = (&bytes[..root], &bytes[slash + 1..]);
    (OsStr::from_bytes(root), OsStr::from_bytes(pattern))
}

/// The pattern without empty components, which no path has.
fn single_slashes(pattern: &str) -> String {
    let components: Vec<&str> = pattern.split('/').filter(|c| !c.is_empty()).collect();
    components.join("/")
}

/// The patterns of the folders above a match, one a level, and whether matches may lie
/// below the last of them at any depth: from a `**` on, or where a brace or bracket
/// spans a slash, all folders are entered.
fn folder_patterns(pattern: &str) -> (Vec<&str>, bool) {
    let mut levels = Vec::new();
    let mut components = pattern.split('/').peekable();
    while let Some(component) = components.next() {
        if component.contains("**") || !is_balanced(component) {
            return (levels, true);
        }
        if components.peek().is_some() {
            levels.push(component);
        }
    }
    (levels, false)
}

/// Whether all that the component opens is closed within it. Escaped brackets are
/// counted too: they cost at most a walk that prunes less.
fn is_balanced(component: &str) -> bool {
    let count = |c: char| component.matches(c).count();
    count('{') == count('}') && count('[') == count(']') && !component.contains('\\')
}

/// Whether a name in the pattern begins with `first`, also as a choice within braces.
fn spells_out(pattern: &str, first: u8) -> bool {
    let before = std::iter::once(b'/').chain(pattern.bytes());
    before.zip(pattern.bytes()).any(|(before, byte)| byte == first && b"/{,".contains(&before))
}
