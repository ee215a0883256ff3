//! Addresses of nodes, and which of them may be spoken to in the plain.

use std::net::{IpAddr, SocketAddr};

/// Why an address is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has no host or no port.
    #[error("'{0}' is not an address; write it as HOST:PORT, as in 10.0.0.5:7070, [::1]:7070 or master-0:7070")]
    Form(String),
    /// What is said there could be read and changed by others.
    #[error(
        "'{0}' is not on this machine, and connections are neither encrypted nor authenticated; allow it with --insecure"
    )]
    Plain(String),
    /// It stands for all addresses of a machine.
    #[error("'{0}' is every address of this machine; tell with --advertise HOST:PORT at which of them others reach it")]
    Wildcard(String),
}

/// Where others reach a node that listens there: as it was told, with the listener's port if that names none (0), or where
/// it listens.
///
/// # Errors
///
/// [`Error::Wildcard`] if it listens everywhere and was told nothing, [`Error::Form`].
pub fn advertised(told: Option<&str>, listens: SocketAddr) -> Result<String, Error> {
    match told {
        None if listens.ip().is_unspecified() => Err(Error::Wildcard(listens.to_string())),
        None => Ok(listens.to_string()),
        Some(told) => match told.rsplit_once(':').ok_or_else(|| Error::Form(told.to_string()))? {
            (host, "0") => Ok(format!("{host}:{}", listens.port())),
            ("0.0.0.0" | "[::]", _) => Err(Error::Wildcard(told.to_string())),
            _ => Ok(told.to_string()),
        },
    }
}

/// Fails for an address beyond this machine, unless plain connections may leave it (`insecure`). A name counts as
/// beyond, but for `localhost`: what it means is for others to say.
///
/// # Errors
///
/// [`Error::Form`] or [`Error::Plain`].
pub fn check_plain(address: &str, insecure: bool) -> Result<(), Error> {
    let form = || Error::Form(address.to_string());
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    port.parse::<u16>().map_err(|_| form())?;
    let (ip, named) = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => (Some(IpAddr::V6(host.parse().map_err(|_| form())?)), false),
        None => (host.parse::<SocketAddr>().ok().map(|a| a.ip()).or(host.parse().ok()), is_name(host)),
    };
    match ip {
        // Without brackets, its colons could be a port's.
        Some(IpAddr::V6(_)) if !host.starts_with('[') => Err(form()),
        Some(ip) if ip.is_loopback() || insecure => Ok(()),
        None if !named => Err(form()),
        None if host == "localhost" || insecure => Ok(()),
        _ => Err(Error::Plain(address.to_string())),
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_can_be_reached() {
        let (here, everywhere) = ("127.0.0.1:7".parse().unwrap(), "0.0.0.0:7".parse().unwrap());
        let wildcard = |text: &str| Err(Error::Wildcard(text.to_string()));
        assert_eq!(advertised(None, here), Ok("127.0.0.1:7".into()));
        assert_eq!(advertised(None, everywhere), wildcard("0.0.0.0:7"));
        assert_eq!(advertised(None, "[::]:7".parse().unwrap()), wildcard("[::]:7"));
        assert_eq!(advertised(Some("master-0:9"), everywhere), Ok("master-0:9".into()));
        assert_eq!(advertised(Some("master-0:0"), everywhere), Ok("master-0:7".into()));
        assert_eq!(advertised(Some("0.0.0.0:9"), here), wildcard("0.0.0.0:9"));
        assert_eq!(advertised(Some("master-0"), here), Err(Error::Form("master-0".into())));
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_plain() {
        for here in ["127.0.0.1:1", "127.9.9.9:65535", "[::1]:7070", "localhost:80"] {
            assert_eq!(check_plain(here, false), Ok(()), "{here}");
        }
        for beyond in
            ["10.0.0.5:1", "0.0.0.0:1", "[::]:1", "[2001:db8::1]:1", "master-0.masters:7070", "localhost.evil:1"]
        {
            assert_eq!(check_plain(beyond, false), Err(Error::Plain(beyond.to_string())));
            assert_eq!(check_plain(beyond, true), Ok(()), "{beyond}");
        }
        for none in
            ["", ":1", "host", "host:", "host:x", "host:65536", "::1:7070", "[::1]", "[x]:1", "a b:1", "h/x:1", "u@h:1"]
        {
            for insecure in [false, true] {
                assert_eq!(check_plain(none, insecure), Err(Error::Form(none.to_string())));
            }
        }
    }
}
