//! Compressed bodies.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;

/// How much is decompressed at once; what comes out is at most about a thousand times as much.
const GZIP_PIECE: usize = 1024;

/// Decompresses a little at a time, so that a small answer cannot fill the memory before its size is looked at.
pub(super) struct Gzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    /// What is yet to be decompressed.
    pub(super) packed: Bytes,
    empty: bool,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), packed: Bytes::new(), empty: true }
    }
}

impl Gzip {
    /// What more of the bytes at hand gives.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.packed.is_empty() {
            self.empty = false;
            let size = self.packed.len().min(GZIP_PIECE);
            self.decoder.write_all(&self.packed[..size])?;
            self.packed.advance(size);
            if let Some(piece) = self.unpacked() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// What was held back until the end, which must be a clean one.
    pub(super) fn finish(&mut self) -> io::Result<Option<Bytes>> {
        if !self.empty {
            self.decoder.try_finish()?;
        }
        Ok(self.unpacked())
    }

    fn unpacked(&mut self) -> Option<Bytes> {
        let out = self.decoder.get_mut();
        (!out.is_empty()).then(|| std::mem::take(out).into())
    }
}
