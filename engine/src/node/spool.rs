//! A file of scratch that async code writes piece by piece: each piece away from the runtime's tasks.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;

use super::env::Env;
use crate::scratch::{self, Mapping};

/// A file that is being written.
pub(crate) struct Spool {
    name: String,
    /// Away while a piece is written, and for good if nobody waited for that.
    writer: Option<Box<dyn Write + Send>>,
    len: u64,
}

impl Spool {
    /// Creates the file.
    pub(crate) async fn create<E: Env>(env: &E, name: String) -> Result<Self, scratch::Error> {
        let (scratch, file) = (env.scratch().clone(), name.clone());
        let created = env.blocking(move || scratch.create(&file)).await;
        let writer = created.unwrap_or_else(|| Err(lost("create", env, &name)))?;
        Ok(Self { name, writer: Some(writer), len: 0 })
    }

    /// Bytes in it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Writes a piece behind what is there.
    pub(crate) async fn write<E: Env>(&mut self, env: &E, bytes: Bytes) -> Result<(), scratch::Error> {
        let Some(mut writer) = self.writer.take() else { return Err(lost("write", env, &self.name)) };
        self.len += bytes.len() as u64;
        let written = env.blocking(move || writer.write_all(&bytes).map(|()| writer)).await;
        let failed = scratch::Error::at("write", env.scratch().place(&self.name));
        self.writer = Some(written.unwrap_or_else(|| Err(panicked())).map_err(failed)?);
        Ok(())
    }

    /// Ends the file and maps it.
    pub(crate) async fn map<E: Env>(self, env: &E) -> Result<Arc<dyn Mapping>, scratch::Error> {
        let Some(mut writer) = self.writer else { return Err(lost("write", env, &self.name)) };
        let (scratch, file) = (env.scratch().clone(), self.name.clone());
        let mapped = env.blocking(move || {
            writer.flush().map_err(scratch::Error::at("write", scratch.place(&file)))?;
            drop(writer);
            scratch.map(&file)
        });
        mapped.await.unwrap_or_else(|| Err(lost("map", env, &self.name)))
    }
}

/// Makes a small file.
pub(crate) async fn write<E: Env>(env: &E, name: String, bytes: Vec<u8>) -> Result<(), scratch::Error> {
    let mut spool = Spool::create(env, name).await?;
    spool.write(env, bytes.into()).await?;
    spool.map(env).await.map(drop)
}

/// Maps a file.
pub(crate) async fn map<E: Env>(env: &E, name: String) -> Result<Arc<dyn Mapping>, scratch::Error> {
    let (scratch, file) = (env.scratch().clone(), name.clone());
    env.blocking(move || scratch.map(&file)).await.unwrap_or_else(|| Err(lost("map", env, &name)))
}

/// Removes all files whose names begin so.
pub(crate) async fn remove<E: Env>(env: &E, prefix: String) -> Result<(), scratch::Error> {
    let (scratch, below) = (env.scratch().clone(), prefix.clone());
    let removed = env.blocking(move || {
        let files = scratch.list(&below)?;
        files.iter().try_for_each(|(name, _)| scratch.remove(name))
    });
    removed.await.unwrap_or_else(|| Err(lost("remove", env, &prefix)))
}

fn panicked() -> io::Error {
    io::Error::other("the work on it was given up or panicked")
}

fn lost<E: Env>(action: &'static str, env: &E, name: &str) -> scratch::Error {
    scratch::Error::at(action, env.scratch().place(name))(panicked())
}
