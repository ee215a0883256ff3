//! What goes wrong on purpose, at once or for some calls; [`crate::Server`] has the methods.

use std::time::Duration;

/// The weather at the API server.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// So many calls answer 429.
    pub(crate) throttled: u32,
    /// Every call waits so long first.
    pub(crate) slow: Duration,
    /// Calls that wait so, by verb and resource.
    pub(crate) held: Vec<(String, String)>,
    /// So many pods may be in a namespace, besides what ResourceQuotas say.
    pub(crate) quota: Option<u64>,
    /// Verb, group and resource that nobody may use; `*` is all.
    pub(crate) denied: Vec<(String, String, String)>,
    /// A watch that begins too long ago is answered by a status rather than by an event.
    pub(crate) gone_by_status: bool,
    pub(crate) bookmarks: Duration,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            throttled: 0,
            slow: Duration::ZERO,
            held: Vec::new(),
            quota: None,
            denied: Vec::new(),
            gone_by_status: false,
            bookmarks: Duration::from_secs(60),
        }
    }
}

impl Faults {
    pub(crate) fn denies(&self, verb: &str, group: &str, resource: &str) -> bool {
        let fits = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        let one = |(v, g, r): &(String, String, String)| fits(v, verb) && fits(g, group) && fits(r, resource);
        self.denied.iter().any(one)
    }
}
