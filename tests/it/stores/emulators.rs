//! Programs that speak the protocols of S3 and Azure: moto and azurite, as the registries have them.
//!
//! They are found below the folder that `GRISTMILL_EMULATORS` names (`.ci/run` makes one): `venv/bin/moto_server` and
//! `node_modules/.bin/azurite-blob`. Without that variable the tests that need them are left out; Google's is in the tree.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::google;

/// The variable that names the folder.
const VARIABLE: &str = "GRISTMILL_EMULATORS";
/// How long one may take to begin, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Azurite's account and its key are the same everywhere.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a bucket; a container needs a signature.
const MAKE: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
kind, port, name, account, key = sys.argv[1:]
if kind == "s3":
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
else:
    date = email.utils.formatdate(usegmt=True)
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2020-10-02\n/{account}/{account}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    headers = {"x-ms-date": date, "x-ms-version": "2020-10-02",
               "Authorization": f"SharedKey {account}:" + base64.b64encode(digest).decode()}
    url = f"http://127.0.0.1:{port}/{account}/{name}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers=headers)
urllib.request.urlopen(request, timeout=60)
"#;

/// Runs a program until this process is gone: the pipe to its standard input closes with it.
const UNTIL_GONE: &str = r#""$@" </dev/null & read -r _; kill $!"#;

/// A store that is emulated.
pub(super) struct Emulator {
    pub(super) kind: &'static str,
    pub(super) address: SocketAddr,
    /// As long as its standard input is open, the program runs: as long as this process.
    _child: Option<Child>,
}

impl Emulator {
    /// One of each cloud, but those that are left out; the same for all tests of this process.
    pub(super) fn all() -> &'static [Self] {
        static ALL: OnceLock<Vec<Emulator>> = OnceLock::new();
        ALL.get_or_init(|| {
            let mut all = vec![Self { kind: "gs", address: google::start(), _child: None }];
            let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
                println!("{VARIABLE} is not set: moto and azurite are left out");
                return all;
            };
            let python = folder.join("venv/bin/python");
            all.push(Self::start("s3", &python, |port| {
                let program = folder.join("venv/bin/moto_server").to_string_lossy().into_owned();
                [&program, "-H", "127.0.0.1", "-p", &port].map(String::from).to_vec()
            }));
            all.push(Self::start("az", &python, |port| {
                let program = folder.join("node_modules/.bin/azurite-blob").to_string_lossy().into_owned();
                let rest = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"];
                let address = [&program, "--blobHost", "127.0.0.1", "--blobPort", &port];
                address.into_iter().chain(rest).map(String::from).collect()
            }));
            all
        })
    }

    fn start(kind: &'static str, python: &Path, command: impl Fn(String) -> Vec<String>) -> Self {
        // Free now, and nobody takes it in the next moment.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let command = command(address.port().to_string());
        assert!(Path::new(&command[0]).exists(), "{} is missing: .ci/run installs it", command[0]);
        let mut shell = Command::new("sh");
        shell.args(["-c", UNTIL_GONE, "sh"]).args(&command);
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let emulator = Self { kind, address, _child: Some(child) };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        for bucket in google::BUCKETS {
            let mut make = Command::new(python);
            make.args(["-c", MAKE, kind, &address.port().to_string(), bucket, ACCOUNT, KEY]);
            assert!(make.status().unwrap().success(), "cannot make a bucket of {kind}");
        }
        emulator
    }

    /// The URL of a store in it.
    pub(super) fn url(&self, prefix: &str) -> String {
        format!("{}://{}/{prefix}", self.kind, google::BUCKETS[0])
    }

    /// The environment that leads there, by way of `through`.
    pub(super) fn variables(&self, through: SocketAddr) -> Vec<(String, String)> {
        let all = match self.kind {
            "s3" => vec![
                ("AWS_ENDPOINT_URL", format!("http://{through}")),
                ("AWS_ALLOW_HTTP", "true".into()),
                ("AWS_ACCESS_KEY_ID", "key".into()),
                ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ],
            "az" => {
                let endpoint = format!("http://{through}/{ACCOUNT}");
                let string = format!("AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};");
                vec![("AZURE_STORAGE_CONNECTION_STRING", string), ("AZURE_ALLOW_HTTP", "true".into())]
            }
            _ => vec![("STORAGE_EMULATOR_HOST", through.to_string())],
        };
        all.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}
