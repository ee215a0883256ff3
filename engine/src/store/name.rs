//! Names of objects: what every store takes.

use std::fmt;

use super::{Error, Kind};

/// Most bytes of a name.
const MAX_NAME: usize = 1024;
/// Most bytes between two slashes.
const MAX_PART: usize = 255;

/// The name of an object: UTF-8, parts divided by single slashes, none of them `.` or `..`, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Kind::Denied`] when it is none.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let fail = |why: &str| {
            Err(Error::new(Kind::Denied, format!("'{}' is no name in a store: {why}", name.escape_debug())))
        };
        if name.is_empty() {
            return fail("it is empty");
        }
        if name.len() > MAX_NAME {
            return fail("it has more than 1024 bytes");
        }
        if name.chars().any(|c| c.is_control() || c == '\\') {
            return fail("control characters and backslashes are not taken");
        }
        for part in name.split('/') {
            match part {
                "" => return fail("it begins or ends with a slash, or has two in a row"),
                "." | ".." => return fail("'.' and '..' lead nowhere in a store"),
                _ if part.len() > MAX_PART => return fail("a part of it has more than 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of something below this.
    ///
    /// # Errors
    /// As [`Name::new`].
    pub fn join(&self, below: &str) -> Result<Self, Error> {
        Self::new(format!("{}/{below}", self.0))
    }

    /// What the names of all objects below this begin with.
    pub fn below(&self) -> String {
        format!("{}/", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(name: String) -> Result<Self, Error> {
        Self::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["a", "a/b.c/d e", "…/ü", ".hidden/..x", &"x".repeat(255)] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
        let long = ["x".repeat(200).as_str(); 6].join("/");
        for name in
            ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "a\nb", "a\\b", &"x".repeat(256), &long]
        {
            assert_eq!(Name::new(name).unwrap_err().kind, Kind::Denied, "{name:?}");
        }
        assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
    }
}
