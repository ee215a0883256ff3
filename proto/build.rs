//! Generates the messages, and with the feature `grpc` the services, from all .proto files of this folder. protox is
//! the compiler, so there is no protoc to install.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;

/// Messages with secrets in them: what is printed of one is its name (`src/lib.rs`).
const SECRETS: &[&str] = &[
    "gristmill.v1.LoginRequest",
    "gristmill.v1.TokenResponse",
    "gristmill.v1.RefreshRequest",
    "gristmill.v1.ChangePasswordRequest",
    "gristmill.v1.RegisterRequest",
    "gristmill.v1.ValidateRequest",
    "gristmill.v1.AddUserRequest",
    "gristmill.v1.AddUserResponse",
    "gristmill.v1.ResetPasswordRequest",
    "gristmill.v1.ResetPasswordResponse",
    "gristmill.v1.CreateTokenResponse",
    "gristmill.internal.v1.UserRecord",
    "gristmill.internal.v1.ChangeUser",
    "gristmill.internal.v1.SessionRecord",
    "gristmill.internal.v1.OpenSession",
    "gristmill.internal.v1.RefreshSession",
    "gristmill.internal.v1.SigningKeyRecord",
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=gristmill");
    let mut files = Vec::new();
    find(Path::new("gristmill"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, ["."]).map_err(io::Error::other)?;
    let out = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    let mut public = descriptors.clone();
    public.file.retain(|file| file.package() == "gristmill.v1");
    fs::write(out.join("descriptors.bin"), public.encode_to_vec())?;
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .skip_debug(SECRETS)
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)
}

/// The .proto files of a folder and those below.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
