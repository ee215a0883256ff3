//! One frame at a time: the gzip, zstd and bzip2 codecs behind one small interface.
//!
//! A codec decodes a single frame (gzip: member, bzip2: stream) and stops right behind
//! it. What may follow a frame is the same question for all of them and is answered
//! once, in `decode.rs`.

use std::io::{self, BufRead, Read};
use std::mem;

use bzip2::{Decompress, Status};
use flate2::bufread::GzDecoder;
use zstd::stream::raw::{self, DParameter, Operation};

use super::compressed::Compressed;
use super::{Compression, ZSTD_WINDOW_LOG_MAX, lz4};

pub(super) trait Codec<'s>: Send {
    fn compressed(&mut self) -> &mut Compressed<'s>;

    /// Makes ready for a frame that starts at the next compressed byte.
    fn open_frame(&mut self) -> io::Result<()>;

    /// Decodes into `out`, which is not empty; 0 once the frame has ended and its
    /// checksums held. A file that ends within the frame gives `UnexpectedEof`.
    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize>;
}

pub(super) fn codec<'s>(kind: Compression, compressed: Compressed<'s>) -> io::Result<Box<dyn Codec<'s> + 's>> {
    Ok(match kind {
        Compression::Gzip => Box::new(Gzip::new(compressed)),
        Compression::Zstd => Box::new(Zstd::new(compressed)?),
        Compression::Bzip2 => Box::new(Bzip2::new(compressed)),
        Compression::Lz4 => Box::new(lz4::Lz4::new(compressed)),
    })
}

struct Gzip<'s>(GzDecoder<Compressed<'s>>);

impl<'s> Gzip<'s> {
    fn new(compressed: Compressed<'s>) -> Self {
        // The decoder parses a header as soon as it is made. It is made on nothing, so
        // that reading starts with the first frame like for the other codecs.
        let mut decoder = GzDecoder::new(Compressed::default());
        *decoder.get_mut() = compressed;
        Self(decoder)
    }
}

impl<'s> Codec<'s> for Gzip<'s> {
    fn compressed(&mut self) -> &mut Compressed<'s> {
        self.0.get_mut()
    }

    fn open_frame(&mut self) -> io::Result<()> {
        let compressed = mem::take(self.0.get_mut());
        self.0.reset(compressed);
        Ok(())
    }

    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

struct Zstd<'s> {
    decoder: raw::Decoder<'static>,
    compressed: Compressed<'s>,
    ended: bool,
}

impl<'s> Zstd<'s> {
    fn new(compressed: Compressed<'s>) -> io::Result<Self> {
        let mut decoder = raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        Ok(Self { decoder, compressed, ended: true })
    }
}

impl<'s> Codec<'s> for Zstd<'s> {
    fn compressed(&mut self) -> &mut Compressed<'s> {
        &mut self.compressed
    }

    fn open_frame(&mut self) -> io::Result<()> {
        self.ended = false;
        self.decoder.reinit()
    }

    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let input = self.compressed.fill_buf()?;
            let at_end = input.is_empty();
            let step = self.decoder.run_on_buffers(input, out)?;
            self.compressed.consume(step.bytes_read);
            self.ended = step.remaining == 0;
            if step.bytes_written > 0 {
                return Ok(step.bytes_written);
            }
            if at_end && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

struct Bzip2<'s> {
    decoder: Decompress,
    compressed: Compressed<'s>,
    ended: bool,
}

impl<'s> Bzip2<'s> {
    fn new(compressed: Compressed<'s>) -> Self {
        Self { decoder: Decompress::new(false), compressed, ended: true }
    }

    /// Decodes once: (compressed bytes taken, bytes given, status).
    fn step(decoder: &mut Decompress, input: &[u8], out: &mut [u8]) -> io::Result<(u64, u64, Status)> {
        let (taken, given) = (decoder.total_in(), decoder.total_out());
        let status =
            decoder.decompress(input, out).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((decoder.total_in() - taken, decoder.total_out() - given, status))
    }
}

impl<'s> Codec<'s> for Bzip2<'s> {
    fn compressed(&mut self) -> &mut Compressed<'s> {
        &mut self.compressed
    }

    fn open_frame(&mut self) -> io::Result<()> {
        self.decoder = Decompress::new(false);
        self.ended = false;
        Ok(())
    }

    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let input = self.compressed.fill_buf()?;
            let at_end = input.is_empty();
            let (taken, given, status) = Self::step(&mut self.decoder, input, out)?;
            // Both counts are bounded by the slices lent above.
            self.compressed.consume(taken as usize);
            self.ended = status == Status::StreamEnd;
            if status == Status::MemNeeded {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            if given > 0 {
                return Ok(given as usize);
            }
            if at_end && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}
