//! What programs have to read that are no part of a job: interpreters, libraries, and the few files of `/etc` that these look
//! into.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Readable for all code. Of another process `/proc` tells little to who may not trace it.
pub(crate) const SYSTEM: &[&str] = &[
    "/bin",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/opt",
    "/proc",
    "/run/current-system/sw",
    "/sbin",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/usr",
];

/// Devices that are the same for everybody.
pub(crate) const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// Files and folders of `/etc` without secrets.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "default/locale",
    "fonts",
    "gai.conf",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld.so.preload",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// Names of folders there that interpreters have, with a version behind them or without.
const ETC_OF: &[&str] = &["R", "java", "perl", "php", "python"];

/// What interpreters have beside their folder of programs.
const BESIDE: &[&str] = &["conf", "etc", "include", "lib", "lib64", "libexec", "pyvenv.cfg", "release", "ssl"];
/// As well, but not below a home, where it holds what programs keep for their user.
const SHARE: &str = "share";

/// Where naming a file in a command is no reason to let it be read.
const NEVER: &[&str] = &["/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var"];

/// Variables that name folders of libraries.
const LIBRARIES: &[&str] = &[
    "CLASSPATH",
    "GEM_PATH",
    "JAVA_HOME",
    "LD_LIBRARY_PATH",
    "NODE_PATH",
    "PERL5LIB",
    "PYTHONHOME",
    "PYTHONPATH",
    "R_LIBS",
    "RUBYLIB",
];

/// What may be read of `/etc`.
pub(crate) fn of_etc() -> Vec<PathBuf> {
    let etc = Path::new("/etc");
    let mut all: Vec<PathBuf> = ETC.iter().map(|name| etc.join(name)).collect();
    let entries = std::fs::read_dir(etc).into_iter().flatten().flatten();
    let version = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    let known = |name: &OsStr| {
        name.to_str().is_some_and(|name| ETC_OF.iter().any(|of| name.strip_prefix(of).is_some_and(version)))
    };
    all.extend(entries.filter(|entry| known(&entry.file_name())).map(|entry| entry.path()));
    all
}

/// What a command needs to read beyond the system's files: what it names by whole paths, the folders in `PATH` with the
/// libraries beside them, and those that variables for libraries name. `HOME` and what is above it are never among these.
pub(crate) fn needed(words: &[String], variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let home = variable("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok());
    let mut all: Vec<PathBuf> = Vec::new();
    for word in words.iter().filter(|word| word.starts_with('/')) {
        let path = Path::new(word);
        if path.is_file() && !NEVER.iter().any(|folder| path.starts_with(folder)) {
            all.push(path.into());
            // Of a program in another's folder of programs.
            all.extend(path.parent().into_iter().flat_map(beside));
        }
    }
    // The program itself may be a link to where its libraries are.
    if let Some(program) = words.first().filter(|word| !word.contains('/')) {
        let paths = variable("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file());
        if let Some(real) = found.and_then(|path| path.canonicalize().ok()) {
            all.extend(real.parent().into_iter().flat_map(beside));
            all.push(real);
        }
    }
    for folder in std::env::split_paths(&variable("PATH").unwrap_or_default()).filter(|folder| folder.is_absolute()) {
        all.extend(beside(&folder));
        all.push(folder);
    }
    let folders = LIBRARIES.iter().filter_map(|name| variable(name));
    all.extend(folders.flat_map(|value| std::env::split_paths(&value).collect::<Vec<_>>()).filter(|p| p.is_absolute()));
    // Links among them lead elsewhere.
    let mut whole: Vec<PathBuf> = all.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let above = |path: &PathBuf| {
        let of_home = |home: &PathBuf| {
            let settings = ["conf", "etc", "release", "ssl"].iter().any(|name| *path == home.join(name));
            home.starts_with(path) || settings || (path.starts_with(home) && path.ends_with(SHARE))
        };
        path == Path::new("/") || home.as_ref().is_some_and(of_home)
    };
    whole.retain(|path| !above(path));
    whole.sort();
    whole.dedup();
    whole
}

/// The libraries that belong to a folder of programs.
fn beside(folder: &Path) -> Vec<PathBuf> {
    // What is beside /bin is the system's, and no more of it is read than is listed above.
    let Some(parent) = folder.parent().filter(|parent| parent.parent().is_some()) else { return Vec::new() };
    match folder.file_name().and_then(OsStr::to_str) {
        Some("bin" | "sbin") => {
            let mut all: Vec<PathBuf> = BESIDE.iter().chain([&SHARE]).map(|name| parent.join(name)).collect();
            // Programs of an environment are links to those that it was made with, whose libraries they use.
            let programs = ["python3", "python"].iter().filter_map(|name| folder.join(name).canonicalize().ok());
            let real = programs.filter_map(|program| program.parent().map(Path::to_path_buf));
            for real in real.filter(|real| real != folder && real.file_name() == Some(OsStr::new("bin"))) {
                all.extend(real.parent().into_iter().flat_map(|prefix| BESIDE.iter().map(|name| prefix.join(name))));
                all.push(real);
            }
            all
        }
        // pyenv, rbenv, asdf: what they begin is elsewhere below.
        Some("shims") => vec![parent.into()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_what_it_names_and_its_interpreter() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in [
            "home/bin",
            "home/.env/shims",
            "home/.env/versions",
            "home/etc",
            "home/share",
            "tool/bin",
            "tool/lib",
            "other",
            "libs",
        ] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("other/map.py"), "").unwrap();
        let at = |path: &str| root.join(path).to_string_lossy().into_owned();
        let variable = |name: &str| match name {
            "HOME" => Some(at("home")),
            "PATH" => Some(format!("/bin:{}:{}:{}:bin", at("home/bin"), at("home/.env/shims"), at("tool/bin"))),
            "PYTHONPATH" => Some(format!("{}:{}", at("libs"), at("home"))),
            _ => None,
        };
        let words = ["python3".to_string(), at("other/map.py"), at("home"), "relative/../../x".into()];
        let all = needed(&words, variable);
        let expected = ["home/.env", "home/.env/shims", "home/bin", "libs", "other/map.py", "tool/bin", "tool/lib"];
        let all: Vec<&PathBuf> = all.iter().filter(|path| path.starts_with(&root)).collect();
        assert_eq!(all, expected.map(|path| root.join(path)).iter().collect::<Vec<_>>());
        assert!(!needed(&words, variable).iter().any(|path| path.starts_with("/etc")), "what is beside /bin");
    }
}
