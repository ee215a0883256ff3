//! A network of its own for each of some processes, in which each way from one to another can be cut: network namespaces
//! on a bridge. Packets that a cut takes are lost without a word, as on a real network.
//!
//! It needs root and `ip` of iproute2; where these are not, there is none.

use std::process::Command;

/// Names of bridges have at most 15 bytes.
const MOST_NAME: usize = 15;

/// Hosts on a bridge, by number from 0.
pub(crate) struct Net {
    tag: String,
    /// The first three bytes of all addresses.
    prefix: String,
    hosts: usize,
}

fn ip(arguments: &str) -> Result<(), String> {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().map_err(|e| format!("ip: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

impl Net {
    /// So many hosts that reach each other and this machine.
    pub(crate) fn of(hosts: usize) -> Result<Self, String> {
        let pid = std::process::id();
        let net =
            Self { tag: format!("gm{pid}"), prefix: format!("10.{}.{}", 128 + pid % 100, pid / 100 % 250), hosts };
        assert!(net.tag.len() + 4 <= MOST_NAME, "{}", net.tag);
        net.make()?;
        Ok(net)
    }

    fn make(&self) -> Result<(), String> {
        let Self { tag, prefix, hosts } = self;
        ip(&format!("link add {tag} type bridge"))?;
        ip(&format!("addr add {prefix}.1/24 dev {tag}"))?;
        ip(&format!("link set {tag} up"))?;
        for host in 0..*hosts {
            let name = self.namespace(host);
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add {tag}v{host} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {tag}v{host} master {tag} up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set eth0 address {}", mac(host)))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", self.host(host)))?;
            ip(&format!("-n {name} link set eth0 up"))?;
        }
        (0..*hosts)
            .try_for_each(|from| (0..*hosts).filter(|to| *to != from).try_for_each(|to| self.way(from, to, true)))
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.tag)
    }

    /// The address of a host.
    pub(crate) fn host(&self, host: usize) -> String {
        format!("{}.{}", self.prefix, host + 2)
    }

    /// What a command begins with that is to run there.
    pub(crate) fn run_at(&self, host: usize) -> String {
        format!("ip netns exec {}", self.namespace(host))
    }

    /// Opens or cuts the way for packets from one host to another. Cut, they go to an address that nobody has.
    pub(crate) fn way(&self, from: usize, to: usize, open: bool) -> Result<(), String> {
        let mac = if open { mac(to) } else { mac(255) };
        let (name, host) = (self.namespace(from), self.host(to));
        ip(&format!("-n {name} neigh replace {host} lladdr {mac} dev eth0 nud permanent"))
    }
}

fn mac(host: usize) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

impl Drop for Net {
    fn drop(&mut self) {
        // The ends of the links in there go as well.
        for host in 0..self.hosts {
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("link del {}", self.tag));
    }
}
