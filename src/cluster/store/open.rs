//! From a URL and environment variables to a client of a cloud.
//!
//! The variables are those that each cloud's own tools read, and those of the library (`AWS_…`, `AZURE_…`, `GOOGLE_…`).
//! S3 and Azure are spoken to in the plain only where `AWS_ALLOW_HTTP` or `AZURE_ALLOW_HTTP` says so, Google only where a
//! variable names such an address.

use std::time::Duration;

use gristmill_engine::store::{Error, Kind};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

use super::objects::{Client, Limits};
use super::{Cloud, Location};

/// A client of a bucket.
pub(super) fn client(location: &Location, variables: &[(String, String)], limits: &Limits) -> Result<Client, Error> {
    let Location::Bucket { cloud, bucket, .. } = location else {
        return Err(Error::new(Kind::Denied, format!("{location} is no bucket")));
    };
    let opened = match cloud {
        Cloud::S3 => s3(bucket, variables, limits).build().map(Client::S3),
        Cloud::Azure => azure(bucket, variables, limits).build().map(Client::Azure),
        Cloud::Google => google(bucket, variables, limits).build().map(Client::Google),
    };
    opened.map_err(|e| {
        let text = format!("cannot use {location}: {e}; see docs/stores.md for the variables that configure it");
        Error::new(Kind::Denied, text)
    })
}

fn retry(limits: &Limits) -> RetryConfig {
    let (init_backoff, max_backoff) = limits.pauses;
    RetryConfig {
        backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 },
        max_retries: limits.tries.saturating_sub(1),
        retry_timeout: limits.within,
    }
}

/// How long things may take, for what the variables do not say themselves.
fn times(limits: &Limits) -> [(ClientConfigKey, Duration); 3] {
    [
        (ClientConfigKey::ConnectTimeout, limits.connect),
        (ClientConfigKey::ReadTimeout, limits.silence),
        (ClientConfigKey::Timeout, limits.request),
    ]
}

fn words(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// The variables that begin so, in lower case, as the library's settings are called.
fn settings<'v, K: std::str::FromStr>(
    variables: &'v [(String, String)],
    begin: &'static str,
) -> impl Iterator<Item = (K, &'v str)> {
    let named = variables.iter().filter(move |(name, _)| name.starts_with(begin));
    named.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.as_str())))
}

fn value<'v>(variables: &'v [(String, String)], name: &str) -> Option<&'v str> {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn s3(bucket: &str, variables: &[(String, String)], limits: &Limits) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (key, time) in times(limits) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), words(time));
    }
    for (key, value) in settings(variables, "AWS_") {
        builder = builder.with_config(key, value);
    }
    builder.with_bucket_name(bucket).with_retry(retry(limits))
}

fn azure(container: &str, variables: &[(String, String)], limits: &Limits) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, time) in times(limits) {
        builder = builder.with_config(AzureConfigKey::Client(key), words(time));
    }
    for (key, value) in settings(variables, "AZURE_") {
        builder = builder.with_config(key, value);
    }
    // As Azure's own tools call them.
    let aliases = [
        ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
        ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
        ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ];
    for (name, key) in aliases {
        if let Some(value) = value(variables, name) {
            builder = builder.with_config(key, value);
        }
    }
    for field in value(variables, "AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default().split(';') {
        let key = match field.split_once('=') {
            Some(("AccountName", _)) => AzureConfigKey::AccountName,
            Some(("AccountKey", _)) => AzureConfigKey::AccessKey,
            Some(("BlobEndpoint", _)) => AzureConfigKey::Endpoint,
            Some(("SharedAccessSignature", _)) => AzureConfigKey::SasKey,
            Some(("UseDevelopmentStorage", _)) => AzureConfigKey::UseEmulator,
            _ => continue,
        };
        builder = builder.with_config(key, field.split_once('=').map_or("", |(_, value)| value));
    }
    builder.with_container_name(container).with_retry(retry(limits))
}

fn google(bucket: &str, variables: &[(String, String)], limits: &Limits) -> GoogleCloudStorageBuilder {
    // Plain connections are allowed here: the machine's own credentials are asked for over one.
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, time) in times(limits) {
        builder = builder.with_config(GoogleConfigKey::Client(key), words(time));
    }
    for (key, value) in settings(variables, "GOOGLE_") {
        builder = builder.with_config(key, value);
    }
    if let Some(host) = value(variables, "STORAGE_EMULATOR_HOST") {
        let url = if host.contains("://") { host.to_string() } else { format!("http://{host}") };
        builder = builder.with_config(GoogleConfigKey::BaseUrl, url.trim_end_matches('/'));
        // Nobody looks at it there; without one, the library would ask the machine for its own.
        builder = builder.with_config(GoogleConfigKey::BearerToken, "emulator");
    }
    builder.with_bucket_name(bucket).with_retry(retry(limits))
}
