//! What a certificate says, for people to read. Nothing is verified here, and nothing is decided by what it says.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Tags of DER.
mod tag {
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const OBJECT: u8 = 0x06;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const TIME: u8 = 0x18;
    pub(super) const VERSION: u8 = 0xa0;
    pub(super) const EXTENSIONS: u8 = 0xa3;
    pub(super) const DNS: u8 = 0x82;
    pub(super) const URI: u8 = 0x86;
    pub(super) const ADDRESS: u8 = 0x87;
}

/// The extension that holds a certificate's names.
const NAMES: [u8; 3] = [0x55, 0x1d, 0x11];
/// The attribute of a subject that is called CN.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 3];

/// What it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: attributes as `CN=…`, with a comma between them.
    pub subject: String,
    /// The subject's common name; empty if there is none.
    pub common_name: String,
    /// Hosts and addresses at which the holder is, and URIs.
    pub names: Vec<String>,
    /// When it begins to count, as `2026-01-31 12:00:00 UTC`.
    pub begins: String,
    /// When it counts no longer.
    pub ends: String,
}

/// Values one after the other.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// The next one: its tag, and its content of at most 16 MiB, which is all there.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next one, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// Those within the next one, which has this tag.
    fn within(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Values)
    }
}

impl Certificate {
    /// Reads DER; `None` if that is no certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut body = Values(der).within(tag::SEQUENCE)?.within(tag::SEQUENCE)?;
        // In this order: version, serial number, algorithm, issuer, times, subject, key.
        body.within(tag::VERSION)?;
        for _ in 0..3 {
            body.next()?;
        }
        let mut times = body.within(tag::SEQUENCE)?;
        let (begins, ends) = (time(times.next()?)?, time(times.next()?)?);
        let (subject, common_name) = subject(body.within(tag::SEQUENCE)?)?;
        body.next()?;
        let mut read = Self { subject, common_name, names: Vec::new(), begins, ends };
        while let Some((tag, content)) = body.next() {
            if tag == tag::EXTENSIONS {
                read.names = names(Values(content).within(tag::SEQUENCE)?)?;
            }
        }
        Some(read)
    }
}

/// Attributes of a subject, and its common name.
fn subject(mut sets: Values<'_>) -> Option<(String, String)> {
    let (mut all, mut common) = (Vec::new(), String::new());
    while let Some((_, set)) = sets.next().filter(|(tag, _)| *tag == tag::SET) {
        let mut attribute = Values(set).within(tag::SEQUENCE)?;
        let kind = attribute.take(tag::OBJECT)?;
        let text = String::from_utf8_lossy(attribute.next()?.1).into_owned();
        all.push(format!("{}={text}", attribute_name(kind)));
        if kind == COMMON_NAME {
            common = text;
        }
    }
    Some((all.join(", "), common))
}

fn attribute_name(kind: &[u8]) -> &'static str {
    match kind {
        [0x55, 0x04, 3] => "CN",
        [0x55, 0x04, 5] => "serialNumber",
        [0x55, 0x04, 6] => "C",
        [0x55, 0x04, 7] => "L",
        [0x55, 0x04, 8] => "ST",
        [0x55, 0x04, 10] => "O",
        [0x55, 0x04, 11] => "OU",
        _ => "other",
    }
}

/// As people write it; years have two digits in one of the forms, which stand for 1950 to 2049.
fn time((tag, content): (u8, &[u8])) -> Option<String> {
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let century = match tag {
        tag::UTC_TIME if digits < "50" => "20",
        tag::UTC_TIME => "19",
        tag::TIME => "",
        _ => return None,
    };
    let digits = format!("{century}{digits}");
    if digits.len() != 14 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize| &digits[from..from + 2];
    Some(format!("{}-{}-{} {}:{}:{} UTC", &digits[..4], part(4), part(6), part(8), part(10), part(12)))
}

/// The names among a certificate's extensions.
fn names(mut extensions: Values<'_>) -> Option<Vec<String>> {
    while let Some(mut extension) = extensions.within(tag::SEQUENCE) {
        if extension.take(tag::OBJECT)? != NAMES {
            continue;
        }
        let (mut tag, mut content) = extension.next()?;
        // Between them may stand whether it is critical.
        if tag != tag::OCTETS {
            (tag, content) = extension.next()?;
        }
        let mut names = Values(content).within(tag::SEQUENCE).filter(|_| tag == tag::OCTETS)?;
        let all = std::iter::from_fn(|| names.next());
        return Some(all.filter_map(|(tag, content)| name(tag, content)).collect());
    }
    Some(Vec::new())
}

/// A name, if it is of a kind that nodes have.
fn name(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        tag::DNS | tag::URI => Some(String::from_utf8_lossy(content).into_owned()),
        tag::ADDRESS => match content.len() {
            4 => <[u8; 4]>::try_from(content).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(content).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn der() -> Vec<u8> {
        let names = ["master-0.masters", "10.0.0.5", "::1"].map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(SanType::URI("gristmill://master".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "a master");
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 7, 1), date_time_ymd(2051, 12, 31));
        // One before the names that is none of ours.
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0]));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn it_is_read_as_it_was_made() {
        let read = Certificate::read(&der()).unwrap();
        assert_eq!((read.subject.as_str(), read.common_name.as_str()), ("CN=a master, O=Example, Inc.", "a master"));
        assert_eq!(read.names, ["master-0.masters", "10.0.0.5", "::1", "gristmill://master"]);
        assert_eq!((read.begins.as_str(), read.ends.as_str()), ("2026-07-01 00:00:00 UTC", "2051-12-31 00:00:00 UTC"));
        assert_eq!(time((tag::UTC_TIME, b"500102030405Z")).unwrap(), "1950-01-02 03:04:05 UTC");
        assert_eq!(time((tag::UTC_TIME, b"49010203040Z")), None);
        assert_eq!(time((tag::TIME, "204901020304éZ".as_bytes())), None);
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let der = der();
        for end in 0..der.len() {
            assert_eq!(Certificate::read(&der[..end]), None, "{end}");
        }
        for at in 0..der.len() {
            for byte in [0, 0x7f, 0x80, 0x83, 0x84, 0xff] {
                let mut other = der.clone();
                other[at] = byte;
                let _ = Certificate::read(&other);
            }
        }
    }
}
