//! `job result`: the output of a job, through any master.

use std::io::{self, Read, Write};

use bytes::Bytes;
use clap::ArgMatches;
use gristmill_engine::data::compress::{Compression, Decoder};
use gristmill_engine::error::Error;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::jobs_client::JobsClient;

use super::super::failure::Failure;
use super::super::stdout;
use super::ask::{WITHIN, answered, block_on};
use super::bearer::Client;
use super::data::each_piece;
use crate::cluster::answer;

/// Bytes that are decompressed at a time.
const BUFFER: usize = 256 << 10;
/// Pieces on their way to the decompressor.
const PIECES: usize = 4;

pub(super) fn result(mut client: JobsClient<Client>, job: String, of: &ArgMatches) -> Result<(), Failure> {
    let part = of.get_one::<u32>("part").copied();
    let status = block_on(answered(client.get(answer::request(api::GetJobRequest { job: job.clone() }, WITHIN))))?;
    let codec = match status.spec.unwrap_or_default().compress() {
        _ if of.get_flag("raw") => None,
        api::Compression::Gzip => Some(Compression::Gzip),
        api::Compression::Zstd => Some(Compression::Zstd),
        api::Compression::Unspecified => None,
    };
    let mut out = stdout::open()?;
    let request = api::ResultRequest { job: job.clone(), part };
    let Some(codec) = codec else {
        block_on(bring(client, request, &mut |piece| out.write_all(piece).map_err(|e| Error::Stdout(e).into())))?;
        return out.flush().map_err(|e| Error::Stdout(e).into());
    };
    let (send, receive) = std::sync::mpsc::sync_channel::<Bytes>(PIECES);
    let name = format!("the result of job {job}");
    let unpacking = std::thread::spawn(move || unpack(codec, name, Pieces { receive, piece: Bytes::new() }, out));
    // The other end fails first where something is wrong with it, and says so.
    let brought = block_on(bring(client, request, &mut |piece| {
        let taken = send.send(Bytes::copy_from_slice(piece));
        taken.map_err(|_| Failure::Output("nobody takes the result any more".into()))
    }));
    drop(send);
    let unpacked = unpacking.join().unwrap_or_else(|_| Err(Failure::Bug("the decompressor panicked".into())));
    match (brought, unpacked) {
        (Err(Failure::Output(_)), unpacked) => unpacked,
        (brought, unpacked) => brought.and(unpacked),
    }
}

async fn bring(
    mut client: JobsClient<Client>,
    request: api::ResultRequest,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let asked = client.result(request).await;
    let mut pieces = asked.map_err(|status| Failure::Cluster(answer::outcome(&status).to_string()))?.into_inner();
    each_piece(&mut pieces, each).await
}

fn unpack(codec: Compression, name: String, pieces: Pieces, mut out: impl Write) -> Result<(), Failure> {
    let damaged = |e: io::Error| Failure::Output(e.to_string());
    let mut decoder = Decoder::new(codec, Box::new(pieces), name.into()).map_err(damaged)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return out.flush().map_err(|e| Error::Stdout(e).into()),
            Ok(n) => out.write_all(&buffer[..n]).map_err(Error::Stdout)?,
            Err(e) => return Err(damaged(e)),
        }
    }
}

/// Pieces of a stream as something to read.
struct Pieces {
    receive: std::sync::mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receive.recv() {
                Ok(piece) => self.piece = piece,
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}
