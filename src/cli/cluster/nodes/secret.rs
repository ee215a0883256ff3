//! The secret by which nodes without certificates know each other.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use zeroize::Zeroizing;

use super::super::super::failure::Failure;
use crate::cluster::wire::Proof;

/// The file in a node's own folder.
const NAME: &str = "node-secret";
/// Bytes of a secret: fewer are guessed.
const BYTES: std::ops::RangeInclusive<usize> = 16..=4096;

/// What this node proves and asks others to prove; `None` where everybody may do everything.
pub(super) fn proof(role: &str, data: &Path, of: &ArgMatches) -> Result<Option<Proof>, Failure> {
    let flag = |name| of.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or_default();
    let given = of.get_one::<PathBuf>("node-secret");
    if let Some(path) = given {
        return read(path).map(Some);
    }
    let joins = |name| of.try_contains_id(name).unwrap_or_default();
    match role {
        _ if flag("no-login") => Ok(None),
        // One that is in no such cluster needs none; the others refuse it.
        "worker" => Ok(None),
        _ if joins("join") || joins("peers") => Err(Failure::Usage(
            "a master that is not alone needs certificates (--tls-ca, --tls-cert, --tls-key), or what the others have as \
             --node-secret: that of the first one is node-secret in its own folder"
                .into(),
        )),
        _ => own(data).map(Some),
    }
}

fn read(path: &Path) -> Result<Proof, Failure> {
    let failed = |source| Failure::File { action: "read", path: path.into(), source };
    let mut secret = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(failed)?;
    file.take(*BYTES.end() as u64 + 1).read_to_end(&mut secret).map_err(failed)?;
    let trimmed = secret.trim_ascii();
    if !BYTES.contains(&trimmed.len()) {
        let (path, bytes) = (path.display(), trimmed.len());
        let what = format!("{path} has {bytes} bytes; a secret of nodes has {} to {}", BYTES.start(), BYTES.end());
        return Err(Failure::Usage(what));
    }
    Ok(Proof::of(trimmed))
}

/// The one in the node's own folder; made if there is none.
fn own(data: &Path) -> Result<Proof, Failure> {
    let path = data.join(NAME);
    let failed = |source| Failure::File { action: "make", path: path.clone(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let secret = Zeroizing::new(format!("{:032x}{:032x}\n", rand::random::<u128>(), rand::random::<u128>()));
            file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed(e)),
    }
    read(&path)
}
