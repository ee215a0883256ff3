//! Invariant 16: A deleted user's token, or a demoted one's, is refused: a second after it was acknowledged that something
//! was taken away, nobody is let in with it by any master, and nobody logs in or continues a session with it at all.

use std::time::Duration;

use super::{Seen, Violation, violation};
use crate::plan::DRIFT;
use crate::workload::{Revocation, Taken, Visit, Way};

/// A master lets people in by what it knew a second ago, by its clock. The slowest clock shows a second after one and a
/// ninth; what is added is for roundings. How long calls are under way does not matter: they come in after they were asked,
/// and what was acknowledged was true before.
const MARGIN: Duration = Duration::from_micros(1_000_000 * 1_000_000 / (1_000_000 - DRIFT as u64) + 10);

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let ledger = seen.users.ledger();
    ledger.revocations.iter().filter_map(|revocation| of_one(revocation, &ledger.visits)).collect()
}

/// The first who was let in though something had been taken away.
fn of_one(revocation: &Revocation, visits: &[Visit]) -> Option<Violation> {
    let visit = visits.iter().find(|visit| is_late(visit, revocation))?;
    Some(violation(16, format!("{visit:?} in spite of {revocation:?}")))
}

fn is_late(visit: &Visit, revocation: &Revocation) -> bool {
    let Revocation { user, taken, begun, acknowledged, undone } = revocation;
    // Tokens are looked at by any master. Sessions begin and go on in the log, where what was acknowledged comes before.
    let from = match visit.way {
        Way::Token(_) => *acknowledged + MARGIN,
        Way::Refresh | Way::Password => *acknowledged,
    };
    if visit.asked <= from || user.as_ref().is_some_and(|user| *user != visit.user) {
        return false;
    }
    // What was told after it had begun may be of afterwards: of a session that began once all earlier ones had ended.
    let is_before = visit.since < *begun;
    let is_away = undone.is_none_or(|undone| visit.answered < undone);
    match (taken, visit.way) {
        (Taken::Sessions, Way::Token(_) | Way::Refresh) | (Taken::Keys, Way::Token(_)) => is_before,
        (Taken::Session(session), Way::Token(_) | Way::Refresh) => visit.session == *session,
        (Taken::RightsBut(left), Way::Token(has)) => is_away && !left.contain(has),
        (Taken::User, _) => is_away,
        (Taken::Keys | Taken::RightsBut(_), Way::Refresh) | (_, Way::Password) => false,
    }
}

#[cfg(test)]
mod tests {
    use gristmill_engine::control::rights::Rights;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What was taken between these times, and given back from 9 s on.
    fn taken(taken: Taken, begun: u64, acknowledged: u64) -> Revocation {
        let user = (taken != Taken::Keys).then(|| "ann".to_string());
        Revocation { user, taken, begun: ms(begun), acknowledged: ms(acknowledged), undone: Some(ms(9_000)) }
    }

    /// With what was told at one time, asked at another.
    fn visit(way: Way, since: u64, asked: u64) -> Visit {
        let (since, asked, answered) = (ms(since), ms(asked), ms(asked + 10));
        Visit { user: "ann".into(), way, session: 7, since, asked, answered }
    }

    fn broken(revocation: &Revocation, visit: Visit) -> Option<u8> {
        of_one(revocation, &[visit]).map(|found| found.invariant)
    }

    const TOKEN: Way = Way::Token(Rights::ALL);

    #[test]
    fn a_token_of_before_is_good_for_a_second_by_any_clock() {
        for ended in [taken(Taken::Sessions, 1_000, 1_500), taken(Taken::Keys, 1_000, 1_500)] {
            assert_eq!(broken(&ended, visit(TOKEN, 900, 2_611)), None);
            assert_eq!(broken(&ended, visit(TOKEN, 900, 2_612)), Some(16));
            assert_eq!(broken(&ended, visit(TOKEN, 900, 20_000)), Some(16), "sessions do not come back");
            assert_eq!(broken(&ended, visit(TOKEN, 1_000, 20_000)), None, "it may be of afterwards");
            assert_eq!(broken(&ended, visit(Way::Password, 900, 5_000)), None);
        }
        let of_bob = Visit { user: "bob".into(), ..visit(TOKEN, 900, 5_000) };
        assert_eq!(broken(&taken(Taken::Sessions, 1_000, 1_500), of_bob.clone()), None);
        assert_eq!(broken(&taken(Taken::Keys, 1_000, 1_500), of_bob), Some(16));
    }

    #[test]
    fn a_session_that_has_ended_does_not_go_on() {
        let all = taken(Taken::Sessions, 1_000, 1_500);
        assert_eq!(broken(&all, visit(Way::Refresh, 900, 1_500)), None);
        assert_eq!(broken(&all, visit(Way::Refresh, 900, 1_501)), Some(16));
        assert_eq!(broken(&taken(Taken::Keys, 1_000, 1_500), visit(Way::Refresh, 900, 5_000)), None);
        let one = taken(Taken::Session(7), 1_000, 1_500);
        assert_eq!(broken(&one, visit(Way::Refresh, 1_200, 1_501)), Some(16), "whenever the word was told");
        assert_eq!(broken(&one, visit(TOKEN, 1_200, 2_700)), Some(16));
        assert_eq!(broken(&taken(Taken::Session(8), 1_000, 1_500), visit(TOKEN, 900, 5_000)), None);
    }

    #[test]
    fn what_is_given_back_may_be_had_again() {
        let gone = taken(Taken::User, 1_000, 1_500);
        assert_eq!(broken(&gone, visit(Way::Password, 1_500, 1_500)), None);
        assert_eq!(broken(&gone, visit(Way::Password, 1_501, 1_501)), Some(16));
        assert_eq!(broken(&gone, visit(TOKEN, 2_000, 5_000)), Some(16));
        assert_eq!(broken(&gone, visit(Way::Password, 8_995, 8_995)), None, "it may be there again");
        assert_eq!(broken(&Revocation { undone: None, ..gone }, visit(Way::Password, 9_500, 9_500)), Some(16));
        let less = taken(Taken::RightsBut(Rights::default()), 1_000, 1_500);
        assert_eq!(broken(&less, visit(TOKEN, 2_000, 5_000)), Some(16), "whenever the token was told");
        assert_eq!(broken(&less, visit(Way::Token(Rights::default()), 900, 5_000)), None);
        assert_eq!(broken(&less, visit(TOKEN, 900, 9_000)), None);
        assert_eq!(broken(&less, visit(Way::Refresh, 900, 5_000)), None, "who may less is still there");
    }
}
