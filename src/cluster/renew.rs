//! Looks for certificates that were replaced while a node runs: every few seconds, and when the node is told to (SIGHUP).

use std::io;
use std::time::Duration;

use gristmill_engine::node::env::Note;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::tls::Tls;
use super::wire::Wire;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for as long as what it gives lives. Of a node without certificates SIGHUP is left alone.
///
/// # Errors
///
/// If the signal cannot be heard.
pub(super) fn begin(wire: &Wire, note: impl Fn(Note) + Send + 'static) -> io::Result<JoinSet<()>> {
    let mut looking = JoinSet::new();
    if let Wire::Tls(tls) = wire {
        // Here, and not when the task first runs: until it is heard the signal ends the process.
        looking.spawn(for_ever(tls.clone(), signal(SignalKind::hangup())?, LOOK_EVERY, note));
    }
    Ok(looking)
}

async fn for_ever(tls: Tls, mut told: Signal, every: Duration, note: impl Fn(Note)) {
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            Some(()) = told.recv() => {}
        }
        let looked = tls.clone();
        let what = match spawn_blocking(move || looked.renew()).await {
            Ok(Some(Ok(()))) => taken(&tls),
            Ok(Some(Err(e))) => format!("keeps the certificates that it has: {e}"),
            // There is nothing new, or the process ends.
            Ok(None) | Err(_) => continue,
        };
        note(Note::Trouble { what });
    }
}

fn taken(tls: &Tls) -> String {
    let own = tls.files().own.as_ref().map_or(&tls.files().authority, |(cert, _)| cert);
    format!("new connections are made with the new certificates of {} and its authority", own.display())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::roles::Roles;
    use super::super::tls::tests::{Folder, authority};
    use super::*;

    const BRIEF: Duration = Duration::from_millis(20);
    const SOON: Duration = Duration::from_secs(10);

    /// In a runtime that looks every [`BRIEF`], what the node says while `during` runs.
    fn said(folder: &Folder, during: impl FnOnce(&mpsc::Receiver<String>)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (say, said) = mpsc::channel();
        let note = move |note: Note| match note {
            Note::Trouble { what } => say.send(what).unwrap(),
            other => panic!("{other:?}"),
        };
        let tls = Tls::load(&folder.files(Roles::MASTER)).unwrap();
        runtime.spawn(async move {
            let never = signal(SignalKind::user_defined2()).unwrap();
            for_ever(tls, never, BRIEF, note).await;
        });
        during(&said);
        runtime.shutdown_background();
    }

    /// The last that is said before there is silence. Three files are not replaced at once: what is said meanwhile depends.
    fn last(said: &mpsc::Receiver<String>) -> String {
        let first = said.recv_timeout(SOON).unwrap();
        std::iter::from_fn(|| said.recv_timeout(BRIEF * 10).ok()).last().unwrap_or(first)
    }

    #[test]
    fn what_is_found_is_said_once_for_each_content() {
        let (folder, authority) = (Folder::new(), authority());
        folder.put(&authority, Roles::MASTER);
        said(&folder, |said| {
            folder.put(&authority, Roles::MASTER);
            assert!(last(said).contains("new connections"));
            for broken in ["none", "none either"] {
                folder.write("own.pem", broken);
                let told = said.recv_timeout(SOON).unwrap();
                assert!(told.contains("keeps the certificates that it has: there is no certificate in"), "{told}");
                assert_eq!(said.recv_timeout(BRIEF * 10), Err(mpsc::RecvTimeoutError::Timeout));
            }
            folder.put(&authority, Roles::MASTER);
            assert!(last(said).contains("new connections"));
        });
    }
}
