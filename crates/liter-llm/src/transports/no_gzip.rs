//! In the place of `gzip.rs` where the crate is built without the feature `gzip`: no host is told that a compressed answer
//! would be welcome, and the bytes of one that comes all the same are an error, not an answer.

use std::io;

use bytes::Bytes;

/// The body of a host that compresses unasked.
#[derive(Default)]
pub(super) struct Gzip {
    /// What is yet to be decompressed.
    pub(super) packed: Bytes,
}

impl Gzip {
    /// Refuses the first bytes.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.packed.is_empty() {
            true => Ok(None),
            false => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is compressed, and this program was built without liter-llm's feature `gzip`",
            )),
        }
    }

    /// An empty body needs no decompressing.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the one that decompresses")]
    pub(super) fn finish(&mut self) -> io::Result<Option<Bytes>> {
        Ok(None)
    }
}
