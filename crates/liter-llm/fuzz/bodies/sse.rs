//! The laws of the event-stream parser on arbitrary bytes.

use liter_llm::transports::sse::SseParser;

/// What pushing the pieces leaves behind: events, whether it went well, last id, unfinished input.
type Outcome = (Vec<(String, String, String)>, bool, String, bool);

fn parse<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut parser = SseParser::new(limit);
    let mut events = Vec::new();
    let outcome = pieces.into_iter().try_for_each(|piece| {
        parser.push(piece, |event| {
            events.push((event.name.to_owned(), event.data.to_owned(), event.id.to_owned()));
            Ok(())
        })
    });
    let well = outcome.is_ok();
    let unfinished = well && parser.has_unfinished();
    (events, well, parser.last_event_id().to_owned(), unfinished)
}

/// Takes the limit and the size of the pieces from the first two bytes, the stream from the rest.
pub fn run(input: &[u8]) {
    let [limit, size, stream @ ..] = input else { return };
    for limit in [usize::from(*limit), usize::MAX / 2] {
        let whole = parse(limit, [stream]);
        assert_eq!(whole, parse(limit, stream.chunks(1)), "byte by byte");
        assert_eq!(whole, parse(limit, stream.chunks(usize::from(*size) + 1)), "in pieces");
        for (name, data, _) in &whole.0 {
            assert!(!name.is_empty() && data.len() <= limit.saturating_mul(3));
        }
    }
}
