//! The laws of a wire format's decoder on arbitrary bytes.

use bytes::Bytes;
use http::HeaderMap;
use liter_llm::LlmError;
use liter_llm::adapters::{Adapter, Frame, Quirks, Target};
use liter_llm::core::fold::Folder;
use liter_llm::transports::sse::SseParser;

/// Reads the bytes as a whole answer, as an event stream and as text frames, one a line.
pub fn run(adapter: &dyn Adapter, input: &[u8]) {
    let [status, rest @ ..] = input else { return };
    let quirks = Quirks::default();
    let target = Target { provider: "fuzz", model: "fuzz-1", quirks: &quirks, stream: true };
    for status in [200, 400 + u16::from(*status)] {
        let answer = adapter.decode(status, &HeaderMap::new(), &Bytes::copy_from_slice(rest), &target);
        assert!(status == 200 || answer.is_err(), "status {status} read as a success");
    }
    stream(adapter, &target, |push| {
        let mut parser = SseParser::new(1 << 20);
        parser.push(rest, |event| push(Frame::Event { name: event.name, data: event.data }))
    });
    stream(adapter, &target, |push| {
        String::from_utf8_lossy(rest).lines().try_for_each(|line| push(Frame::Text(line)))
    });
}

fn stream(
    adapter: &dyn Adapter,
    target: &Target<'_>,
    frames: impl FnOnce(&mut dyn FnMut(Frame<'_>) -> Result<(), LlmError>) -> Result<(), LlmError>,
) {
    let mut decoder = adapter.decoder(target);
    let mut chunks = Vec::new();
    let mut folder = Folder::new();
    let mut folded = 0;
    let outcome = frames(&mut |frame| {
        if !decoder.is_done() {
            decoder.push(frame, &mut chunks)?;
            chunks[folded..].iter().for_each(|chunk| folder.push(chunk));
            folded = chunks.len();
        }
        Ok(())
    });
    // After an error the answer so far is still to be had; otherwise the stream ends here.
    let _ = folder.partial();
    if outcome.is_ok() && decoder.finish(&mut chunks).is_ok() {
        chunks[folded..].iter().for_each(|chunk| folder.push(chunk));
        let _ = folder.finish();
    }
}
