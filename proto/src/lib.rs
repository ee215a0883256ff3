//! The messages of Gristmill, and with the feature `grpc` its services, generated from the .proto files beside this.
//!
//! `gristmill.v1` is what clients build on and stays compatible; `gristmill.internal.v1` is spoken between nodes of one
//! cluster and may grow with each release. Nothing but generated code lives here, and what is printed instead of secrets.

#![allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant, reason = "generated")]

/// What messages are encoded and decoded with.
pub use prost;

/// Messages between nodes, and commands to the replicated state.
pub mod internal {
    /// The first version, and so far the only one.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/gristmill.internal.v1.rs"));
    }
}

/// Jobs as clients see them.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/gristmill.v1.rs"));
}

/// What is printed of messages with secrets in them: their names.
macro_rules! secret {
    ($($message:path),+ $(,)?) => {
        $(impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(secret)"))
            }
        })+
    };
}

secret!(
    v1::LoginRequest,
    v1::TokenResponse,
    v1::RefreshRequest,
    v1::ChangePasswordRequest,
    v1::RegisterRequest,
    v1::ValidateRequest,
    v1::AddUserRequest,
    v1::AddUserResponse,
    v1::ResetPasswordRequest,
    v1::ResetPasswordResponse,
    v1::CreateTokenResponse,
    internal::v1::UserRecord,
    internal::v1::ChangeUser,
    internal::v1::SessionRecord,
    internal::v1::OpenSession,
    internal::v1::RefreshSession,
    internal::v1::SigningKeyRecord,
);

/// The .proto files of `gristmill.v1` with their comments, as one encoded `FileDescriptorSet`: for reflection, and for the
/// same calls in other clothes.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
