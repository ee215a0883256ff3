//! Whose turn it is: users share slots evenly, and within a user jobs go by priority, then by age.
//!
//! Which task of a job is taken is in `queue`; which tasks deserve a second attempt is in `backup`.

pub(super) mod backup;
pub(super) mod queue;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The order of users, by attempts that run, and of their jobs.
#[derive(Debug, Default)]
pub(super) struct Shares {
    users: BTreeMap<Arc<str>, User>,
    /// Users with something to run.
    order: BTreeSet<(usize, Arc<str>)>,
}

#[derive(Debug, Default)]
struct User {
    running: usize,
    runnable: BTreeSet<(Reverse<i32>, u64)>,
}

impl Shares {
    /// Whether any job has something to run.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Jobs with something to run, the next one first, of users who do not run as many attempts as they may; 0: any number.
    pub(super) fn jobs<'s>(&'s self, most: impl Fn(&str) -> u32 + 's) -> impl Iterator<Item = u64> + 's {
        let may = move |running: usize, user: &str| match most(user) {
            0 => true,
            most => running < most as usize,
        };
        let users = self.order.iter().filter(move |(running, user)| may(*running, user));
        users.filter_map(|(_, user)| self.users.get(user)).flat_map(|user| user.runnable.iter().map(|(_, job)| *job))
    }

    /// Says whether a job has something to run. Gives whether that is news.
    pub(super) fn set(&mut self, user: &Arc<str>, priority: i32, job: u64, runnable: bool) -> bool {
        self.change(user, |user| {
            let job = (Reverse(priority), job);
            if runnable { user.runnable.insert(job) } else { user.runnable.remove(&job) }
        })
    }

    /// Attempts of the user's that run.
    pub(super) fn running(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |user| user.running)
    }

    /// An attempt of the user's began.
    pub(super) fn began(&mut self, user: &Arc<str>) {
        self.change(user, |user| user.running += 1);
    }

    /// An attempt of the user's is no more.
    pub(super) fn ended(&mut self, user: &Arc<str>) {
        self.change(user, |user| user.running = user.running.saturating_sub(1));
    }

    fn change<T>(&mut self, name: &Arc<str>, change: impl FnOnce(&mut User) -> T) -> T {
        let user = self.users.entry(name.clone()).or_default();
        let before = (user.running, user.runnable.is_empty());
        let changed = change(user);
        let after = (user.running, user.runnable.is_empty());
        if before != after {
            if !before.1 {
                self.order.remove(&(before.0, name.clone()));
            }
            if !after.1 {
                self.order.insert((after.0, name.clone()));
            }
            if after == (0, true) {
                self.users.remove(name);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_with_fewer_attempts_is_next_and_priority_counts_within() {
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let mut shares = Shares::default();
        assert!(shares.set(&ann, 0, 1, true));
        assert!(shares.set(&ann, 5, 2, true));
        assert!(shares.set(&bob, -5, 3, true));
        assert!(!shares.set(&bob, -5, 3, true), "no news");
        shares.began(&ann);
        assert_eq!(shares.jobs(|_| 0).collect::<Vec<_>>(), [3, 2, 1]);
        shares.began(&bob);
        shares.began(&bob);
        assert_eq!(shares.jobs(|_| 0).collect::<Vec<_>>(), [2, 1, 3]);
        let most = |user: &str| if user == "ann" { 1 } else { 3 };
        assert_eq!(shares.jobs(most).collect::<Vec<_>>(), [3], "ann has all that she may");
        shares.set(&ann, 0, 1, false);
        shares.set(&ann, 5, 2, false);
        assert_eq!(shares.jobs(|_| 0).collect::<Vec<_>>(), [3]);
        shares.set(&bob, -5, 3, false);
        assert!(shares.is_empty());
    }
}
