//! How often somebody may try a password: pure, with the time given.
//!
//! Each name from each address has a count of failures, whether or not there is such a user. From the sixth failure on the
//! next try has to wait, each time twice as long, half a minute at most; failures are forgotten one a minute. An address has
//! more tries for all names, and a name for all addresses: but from where somebody has logged in before, failures elsewhere
//! keep nobody from doing so again. What is kept is bounded: who was there least lately is forgotten first.

use std::collections::BTreeMap;
use std::time::Duration;

/// Failures without a wait.
const FREE: u32 = 5;
/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);
/// After so long one failure is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Names and addresses of which something is kept.
const MOST: usize = 10_000;
/// So many times the failures of one name may come from one address: there may be many people behind it.
const ADDRESS: u32 = 4;
/// So many times those from one address may be of one name from all of them.
const NAME: u32 = 10;

/// Failures of late.
#[derive(Debug, Default)]
pub struct Attempts {
    of: BTreeMap<String, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

impl Failures {
    /// What is left of them at `now`.
    fn left(self, now: Duration) -> u32 {
        let forgotten = now.saturating_sub(self.last).as_secs() / FORGOTTEN.as_secs();
        self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// When the next try may be.
    fn until(self, now: Duration, free: u32) -> Duration {
        match self.left(now).checked_sub(free) {
            None => Duration::ZERO,
            Some(over) => self.last + FIRST.saturating_mul(1 << over.min(10)).min(LONGEST),
        }
    }
}

fn keys(name: &str, from: &str) -> [(String, u32); 3] {
    [(format!("b{from} {name}"), FREE), (format!("a{from}"), FREE * ADDRESS), (format!("n{name}"), FREE * NAME)]
}

/// That somebody has logged in so.
fn known(name: &str, from: &str) -> String {
    format!("k{from} {name}")
}

impl Attempts {
    /// A try begins: it counts as a failure until it went well, so that many at once are no more than many.
    ///
    /// # Errors
    /// How long to wait.
    pub fn begin(&mut self, name: &str, from: &str, now: Duration) -> Result<(), Duration> {
        self.check(name, from, now)?;
        self.failed(name, from, now);
        Ok(())
    }

    /// Whether a try may be made now.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check(&self, name: &str, from: &str, now: Duration) -> Result<(), Duration> {
        let [both, address, anywhere] = keys(name, from);
        let anywhere = Some(anywhere).filter(|_| !self.of.contains_key(&known(name, from)));
        let all = [Some(both), Some(address), anywhere].into_iter().flatten();
        let untils = all.map(|(key, free)| self.of.get(&key).map(|failures| failures.until(now, free)));
        let until = untils.flatten().max().unwrap_or_default();
        if until > now { Err(until - now) } else { Ok(()) }
    }

    /// A try failed.
    pub fn failed(&mut self, name: &str, from: &str, now: Duration) {
        for (key, _) in keys(name, from) {
            let count = self.of.get(&key).map_or(0, |failures| failures.left(now)).saturating_add(1);
            self.of.insert(key, Failures { count, last: now });
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.of.len() > MOST {
            let oldest = self.of.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.of.remove(&oldest);
        }
    }

    /// A try went well: failures of the name from there are forgotten, and of the address and the name this one. It may have
    /// tried others, and the name may be tried elsewhere.
    pub fn succeeded(&mut self, name: &str, from: &str, now: Duration) {
        let [(both, _), address, anywhere] = keys(name, from);
        self.of.remove(&both);
        for (key, _) in [address, anywhere] {
            if let Some(failures) = self.of.get_mut(&key) {
                failures.count = failures.count.saturating_sub(1);
            }
        }
        self.of.insert(known(name, from), Failures { count: 0, last: now });
        self.bound();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_and_are_forgotten() {
        let mut attempts = Attempts::default();
        let mut now = S;
        for _ in 0..FREE {
            assert_eq!(attempts.check("ann", "a", now), Ok(()));
            attempts.failed("ann", "a", now);
        }
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(attempts.check("ann", "a", now), Err(wait * S));
            assert_eq!(attempts.check("bob", "a", now), Ok(()), "another name from there");
            assert_eq!(attempts.check("ann", "b", now), Ok(()), "from elsewhere");
            now += wait * S;
            assert_eq!(attempts.check("ann", "a", now), Ok(()));
            attempts.failed("ann", "a", now);
        }
        assert!(attempts.check("ann", "a", now + 8 * FORGOTTEN).is_ok());
        attempts.succeeded("ann", "a", now);
        assert_eq!(attempts.check("ann", "a", now), Ok(()));
    }

    #[test]
    fn who_has_logged_in_before_is_not_kept_out_by_others() {
        let mut attempts = Attempts::default();
        attempts.succeeded("ann", "home", S);
        for n in 0..FREE * NAME {
            attempts.failed("ann", &format!("a{n}"), S);
        }
        assert_eq!(attempts.check("ann", "another", S), Err(S));
        assert_eq!(attempts.check("ann", "home", S), Ok(()));
        for _ in 0..FREE {
            attempts.failed("ann", "home", S);
        }
        assert_eq!(attempts.check("ann", "home", S), Err(S), "but tries there are few as well");
    }

    #[test]
    fn an_address_that_tries_many_names_waits_too() {
        let mut attempts = Attempts::default();
        for n in 0..FREE * ADDRESS {
            assert_eq!(attempts.check(&format!("user{n}"), "a", S), Ok(()));
            attempts.failed(&format!("user{n}"), "a", S);
        }
        assert_eq!(attempts.check("another", "a", S), Err(S));
        assert_eq!(attempts.check("another", "b", S), Ok(()));
    }

    #[test]
    fn who_logs_in_often_from_one_place_does_not_wait() {
        let mut attempts = Attempts::default();
        for _ in 0..10 * FREE * ADDRESS {
            assert_eq!(attempts.begin("ann", "a", S), Ok(()));
            attempts.succeeded("ann", "a", S);
        }
        // Tries that have not come to anything yet count.
        for _ in 0..FREE {
            assert_eq!(attempts.begin("bob", "a", S), Ok(()));
        }
        assert_eq!(attempts.begin("bob", "a", S), Err(S));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut attempts = Attempts::default();
        for n in 0..MOST as u64 {
            attempts.failed(&format!("user{n}"), "a", S + Duration::from_millis(n));
        }
        assert_eq!(attempts.of.len(), MOST);
        assert!(!attempts.of.contains_key("nuser0") && attempts.of.contains_key("aa"));
    }
}
