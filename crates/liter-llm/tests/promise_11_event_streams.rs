//! Row 11: the event-stream parser against the standard: vectors at every split, any bytes against a slow reference.
//!
//! The fuzz targets in `fuzz/` need the nightly toolchain and are not run here; `fuzz_smoke.rs` runs their bodies on
//! the stable one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use liter_llm::transports::sse::{MAX_EVENT_BYTES, SseParser};
use liter_llm::{ErrorKind, LlmError};
use proptest::prelude::*;

type Event = (String, String, String);

/// Everything an event stream leaves behind.
#[derive(Debug, PartialEq, Eq, Default)]
struct Outcome {
    events: Vec<Event>,
    last_id: String,
    retry: Option<u128>,
}

fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut parser = SseParser::default();
    let mut events = Vec::new();
    for piece in pieces {
        parser
            .push(piece, |event| {
                events.push((event.name.into(), event.data.into(), event.id.into()));
                Ok(())
            })
            .unwrap();
    }
    let retry = parser.retry().map(|time| time.as_millis());
    Outcome { events, last_id: parser.last_event_id().into(), retry }
}

/// The standard's text, step by step, on the whole stream at once.
fn reference(bytes: &[u8]) -> Outcome {
    let decoded = String::from_utf8_lossy(bytes);
    let text = decoded.strip_prefix('\u{feff}').unwrap_or(&decoded);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // What follows the last line end is not a line.
    let (mut data, mut kind, mut id_buffer) = (String::new(), String::new(), String::new());
    let mut outcome = Outcome::default();
    for line in lines {
        if line.is_empty() {
            outcome.last_id = id_buffer.clone();
            if data.is_empty() {
                kind.clear();
                continue;
            }
            data.pop();
            let name = if kind.is_empty() { "message".to_owned() } else { kind.clone() };
            outcome.events.push((name, data.clone(), id_buffer.clone()));
            data.clear();
            kind.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id_buffer = value.to_owned(),
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                outcome.retry = Some(value.parse().unwrap_or(u128::from(u64::MAX)));
            }
            _ => {}
        }
    }
    outcome
}

/// Input, and the expected events as (name, data, id).
type Vector = (&'static [u8], &'static [(&'static str, &'static str, &'static str)]);

const VECTORS: &[Vector] = &[
    // Nothing to dispatch.
    (b"", &[]),
    (b"\n", &[]),
    (b"\n\n\n", &[]),
    (b"\r\r\n\n\r", &[]),
    (b":\n\n", &[]),
    (b": comment\n\n", &[]),
    (b"event: x\n\n", &[]),
    (b"id: 1\n\n", &[]),
    (b"foo: bar\n\n", &[]),
    (b"foo\n\n", &[]),
    (b"\xEF\xBB\xBF", &[]),
    (b"\xEF\xBB\xBF\n\n", &[]),
    // The end of the stream does not dispatch.
    (b"data: x", &[]),
    (b"data: x\n", &[]),
    (b"data: x\r", &[]),
    (b"data: x\r\n", &[]),
    (b"data: x\n\ndata: y\n", &[("message", "x", "")]),
    (b"data: x\n\ndata: y", &[("message", "x", "")]),
    // Line ends.
    (b"data: x\n\n", &[("message", "x", "")]),
    (b"data: x\r\r", &[("message", "x", "")]),
    (b"data: x\r\n\r\n", &[("message", "x", "")]),
    (b"data: x\r\n\n", &[("message", "x", "")]),
    (b"data: x\n\r\n", &[("message", "x", "")]),
    (b"data: x\r\r\n", &[("message", "x", "")]),
    (b"data: x\n\r", &[("message", "x", "")]),
    (b"data: x\r\n\r", &[("message", "x", "")]),
    (b"data: x\r\n\rdata: y\r\r\n", &[("message", "x", ""), ("message", "y", "")]),
    (b"data: x\r\n\r\ndata: y\r\n\r\n", &[("message", "x", ""), ("message", "y", "")]),
    (b"data: x\n\n\n\ndata: y\n\n", &[("message", "x", ""), ("message", "y", "")]),
    (b"\n\ndata: x\n\n", &[("message", "x", "")]),
    // Other separators are not line ends.
    (b"data: a\x0Bb\x0Cc\xC2\x85d\xE2\x80\xA8e\n\n", &[("message", "a\u{b}b\u{c}c\u{85}d\u{2028}e", "")]),
    // Spaces and colons.
    (b"data:x\n\n", &[("message", "x", "")]),
    (b"data:  x\n\n", &[("message", " x", "")]),
    (b"data: x \n\n", &[("message", "x ", "")]),
    (b"data:\tx\n\n", &[("message", "\tx", "")]),
    (b"data: a:b: c\n\n", &[("message", "a:b: c", "")]),
    (b"data::x\n\n", &[("message", ":x", "")]),
    (b" data: x\n\n", &[]),
    (b"data : x\n\n", &[]),
    (b"Data: x\nDATA: y\n\n", &[]),
    (b"datax: y\n\n", &[]),
    (b"dat: y\n\n", &[]),
    // Empty data.
    (b"data\n\n", &[("message", "", "")]),
    (b"data:\n\n", &[("message", "", "")]),
    (b"data: \n\n", &[("message", "", "")]),
    (b"data\ndata\n\n", &[("message", "\n", "")]),
    (b"data\n\ndata\ndata\n\ndata:", &[("message", "", ""), ("message", "\n", "")]),
    // Several lines.
    (b"data: a\ndata: b\n\n", &[("message", "a\nb", "")]),
    (b"data: a\r\ndata: b\r\ndata: c\r\n\r\n", &[("message", "a\nb\nc", "")]),
    (b"data: a\ndata:\ndata: b\n\n", &[("message", "a\n\nb", "")]),
    (b"data:\ndata: a\n\n", &[("message", "\na", "")]),
    (b"data: a\n: c\nevent: e\nfoo: z\ndata: b\n\n", &[("e", "a\nb", "")]),
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", &[("message", "YHOO\n+2\n10", "")]),
    // Types.
    (b"event: add\ndata: 1\n\n", &[("add", "1", "")]),
    (b"data: 1\nevent: add\n\n", &[("add", "1", "")]),
    (b"event: a\nevent: b\ndata: 1\n\n", &[("b", "1", "")]),
    (b"event: a\nevent:\ndata: 1\n\n", &[("message", "1", "")]),
    (b"event: a\nevent\ndata: 1\n\n", &[("message", "1", "")]),
    (b"event: a\n\ndata: 1\n\n", &[("message", "1", "")]),
    (b"event: a\ndata: 1\n\ndata: 2\n\n", &[("a", "1", ""), ("message", "2", "")]),
    (b"event:  a\ndata: 1\n\n", &[(" a", "1", "")]),
    (b"event: \xC3\xA9\xFF\ndata: 1\n\n", &[("\u{e9}\u{fffd}", "1", "")]),
    // Ids.
    (b"id: 1\ndata: x\n\n", &[("message", "x", "1")]),
    (b"id: 1\ndata: x\n\ndata: y\n\n", &[("message", "x", "1"), ("message", "y", "1")]),
    (b"id: 1\ndata: x\n\nid\ndata: y\n\n", &[("message", "x", "1"), ("message", "y", "")]),
    (b"id: 1\ndata: x\n\nid: a\0b\ndata: y\n\n", &[("message", "x", "1"), ("message", "y", "1")]),
    (b"id: 1\n\ndata: y\n\n", &[("message", "y", "1")]),
    (b"id: 1\nid: 2\ndata: y\n\nid: 3\n", &[("message", "y", "2")]),
    (b"id: 1\nid: \0\ndata: y\n\n", &[("message", "y", "1")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        &[("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
    ),
    // Reconnection time.
    (b"retry: 1500\ndata: x\n\n", &[("message", "x", "")]),
    (b"retry: 1500\nretry: 15s\nretry:\nretry: -1\nretry:  7\n", &[]),
    (b"retry: 99999999999999999999999999999999999999999\n", &[]),
    // Byte order mark.
    (b"\xEF\xBB\xBFdata: x\n\n", &[("message", "x", "")]),
    (b"\xEF\xBB\xBF\xEF\xBB\xBFdata: x\n\ndata: y\n\n", &[("message", "y", "")]),
    (b"\xEF\xBBdata: x\n\ndata: y\n\n", &[("message", "y", "")]),
    (b"\xEF\ndata: y\n\n", &[("message", "y", "")]),
    (b"\n\xEF\xBB\xBFdata: x\n\n", &[]),
    (b"data: \xEF\xBB\xBFx\n\n", &[("message", "\u{feff}x", "")]),
    // Characters.
    (b"data: \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\n\n", &[("message", "\u{e9}\u{20ac}\u{1f600}", "")]),
    (b"data: a\0b\n\n", &[("message", "a\0b", "")]),
    (b"data: \xFF\n\n", &[("message", "\u{fffd}", "")]),
    (b"data: \xE2\x82\n\n", &[("message", "\u{fffd}", "")]),
    (b"data: \xF0\x9F\x98x\n\n", &[("message", "\u{fffd}x", "")]),
    (b"data: \xC0\xAF\xED\xA0\x80\n\n", &[("message", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}", "")]),
    (b"data: a\ndata: \xE2\ndata: \xFFb\n\n", &[("message", "a\n\u{fffd}\n\u{fffd}b", "")]),
    (b"data: \xE2\ndata: b\n\n", &[("message", "\u{fffd}\nb", "")]),
    (b"d\xFFta: x\n\xFFdata: y\n\n", &[]),
    (b"id: \xFF\ndata: x\n\n", &[("message", "x", "\u{fffd}")]),
    // What providers send.
    (b"data: {\"a\":1}\n\ndata: [DONE]\n\n", &[("message", "{\"a\":1}", ""), ("message", "[DONE]", "")]),
    (
        b": PROCESSING\n\n: PROCESSING\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        &[("message_stop", "{\"type\":\"message_stop\"}", "")],
    ),
];

#[test]
fn row_11_every_vector_at_every_split() {
    assert!(VECTORS.len() >= 60);
    for (input, expected) in VECTORS {
        let whole = parse([*input]);
        let shown = String::from_utf8_lossy(input);
        let events: Vec<_> =
            whole.events.iter().map(|(n, d, i)| (n.as_str(), d.as_str(), i.as_str())).collect();
        assert_eq!(events, *expected, "{shown:?}");
        assert_eq!(whole, reference(input), "reference, {shown:?}");
        for at in 0..=input.len() {
            assert_eq!(parse([&input[..at], &input[at..]]), whole, "{shown:?} split at {at}");
        }
        assert_eq!(parse(input.chunks(1)), whole, "{shown:?} byte by byte");
        let with_empty = input.chunks(1).flat_map(|byte| [byte, &[]]);
        assert_eq!(parse(with_empty), whole, "{shown:?} with empty pushes");
    }
}

#[test]
fn all_vectors_in_one_stream_at_every_split() {
    let joined: Vec<u8> =
        VECTORS.iter().flat_map(|(input, _)| input.iter().copied().chain(*b"\n\n")).collect();
    let whole = reference(&joined);
    assert!(whole.events.len() > 60);
    for at in 0..=joined.len() {
        assert_eq!(parse([&joined[..at], &joined[at..]]), whole, "split at {at}");
    }
}

#[test]
fn the_reconnection_time_is_kept() {
    assert_eq!(parse([&b"retry: 1500\nretry: 15s\nretry:\n"[..]]).retry, Some(1500));
    assert_eq!(parse([&b"retry: x\n"[..]]).retry, None);
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"data",
        b"data:",
        b"data: ",
        b"event:",
        b"event: ping",
        b"id:",
        b"id: 7",
        b"id: \0",
        b"retry: 10",
        b":",
        b" ",
        b"\n",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"{\"a\":1}",
        b"\xEF\xBB\xBF",
        b"\xE2\x82\xAC",
        b"\xE2\x82",
        b"\xFF",
        b"\0",
        b"x",
    ];
    prop_oneof![
        9 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

/// Cases of each property.
const FULL: u32 = 300_000;
const SHORT: u32 = 3_000;

fn cases() -> ProptestConfig {
    let full = std::env::var("LITER_LLM_SOAK").is_ok_and(|value| value == "1");
    let cases = if full { FULL } else { SHORT };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]
    #[test]
    fn row_11_any_bytes_in_any_pieces_equal_the_reference(
        fragments in proptest::collection::vec(fragment(), 0..60),
        sizes in proptest::collection::vec(1usize..9, 1..12),
    ) {
        let input = fragments.concat();
        let expected = reference(&input);
        prop_assert_eq!(&parse([input.as_slice()]), &expected);
        let (mut pieces, mut rest, mut turn) = (Vec::new(), input.as_slice(), 0);
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(sizes[turn % sizes.len()].min(rest.len()));
            pieces.push(piece);
            rest = tail;
            turn += 1;
        }
        prop_assert_eq!(&parse(pieces), &expected);
    }

    #[test]
    fn row_11_the_limit_falls_on_the_same_event_at_any_split(
        fragments in proptest::collection::vec(fragment(), 0..40),
        limit in 0usize..40,
        size in 1usize..7,
    ) {
        let input = fragments.concat();
        let run = |pieces: Vec<&[u8]>| {
            let mut parser = SseParser::new(limit);
            let mut events = 0;
            let mut count = |piece: &[u8]| parser.push(piece, |_| { events += 1; Ok(()) });
            let outcome = pieces.into_iter().try_for_each(&mut count);
            (events, outcome.is_ok())
        };
        prop_assert_eq!(run(vec![&input]), run(input.chunks(size).collect()));
    }
}

#[test]
fn row_11_data_that_grows_by_replacement_meets_the_limit_at_any_split() {
    // Ten bytes that are no UTF-8 become thirty.
    let input = b"data:\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\n\n";
    for (limit, fits) in [(29, false), (30, true)] {
        for size in 1..=input.len() {
            let mut parser = SseParser::new(limit);
            let outcome = input.chunks(size).try_for_each(|piece| parser.push(piece, |_| Ok(())));
            assert_eq!(outcome.is_ok(), fits, "limit {limit}, pieces of {size}");
        }
    }
}

#[test]
fn row_11_an_event_of_16_mib_is_refused_cleanly() {
    let mut parser = SseParser::default();
    let mut seen = 0;
    let mut push = |bytes: &[u8]| {
        parser.push(bytes, |_| {
            seen += 1;
            Ok(())
        })
    };
    push(b"data: before\n\ndata: ").unwrap();
    let block = vec![b'x'; 64 * 1024];
    let mut pushed = 0;
    let error = loop {
        match push(&block) {
            Ok(()) => pushed += block.len(),
            Err(error) => break error,
        }
        assert!(pushed <= MAX_EVENT_BYTES, "the limit did not hold");
    };
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("16777216"), "{error}");
    assert_eq!(push(b"\n\ndata: y\n\n").unwrap_err().kind(), ErrorKind::Decode);
    assert_eq!(seen, 1);
}

#[test]
fn data_lines_count_together_and_comments_do_not_add_up() {
    let mut parser = SseParser::new(100);
    for _ in 0..1000 {
        parser.push(b": keep alive\n", |_| Ok(())).unwrap();
    }
    let outcome = (0..1000).try_for_each(|_| parser.push(b"data: 123456789\n", |_| Ok(())));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Decode);
}

#[test]
fn an_error_from_the_reader_stops_the_parser() {
    let mut parser = SseParser::default();
    let mut seen = 0;
    let outcome = parser.push(b"data: 1\n\ndata: 2\n\n", |_| {
        seen += 1;
        Err(LlmError::new(ErrorKind::Overloaded, "stop"))
    });
    assert_eq!((seen, outcome.unwrap_err().kind()), (1, ErrorKind::Overloaded));
    assert!(parser.push(b"data: 3\n\n", |_| Ok(())).is_err());
}

#[test]
fn unfinished_input_is_noticed() {
    for (input, unfinished) in [
        ("", false),
        ("data: x\n\n", false),
        ("data: x\r\r", false),
        (": ping\n", false),
        ("\u{feff}", false),
        ("data: x", true),
        ("data: x\n", true),
        ("event: x\n", true),
        ("data: x\n\n: pi", true),
        ("data\r", true),
    ] {
        let mut parser = SseParser::default();
        parser.push(input.as_bytes(), |_| Ok(())).unwrap();
        assert_eq!(parser.has_unfinished(), unfinished, "{input:?}");
    }
}

#[test]
fn a_whole_event_is_borrowed_from_the_pushed_bytes() {
    let input = b"event: delta\ndata: {\"text\":\"hello\"}\n\ndata: [DONE]\n\n";
    let range = input.as_ptr_range();
    let mut parser = SseParser::default();
    parser
        .push(input, |event| {
            assert!(range.contains(&event.data.as_ptr()));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_long_line_in_small_pieces_is_not_scanned_again() {
    // Scanning from the start each time would look at 10^12 bytes here.
    let mut parser = SseParser::default();
    let mut length = 0;
    parser.push(b"data: ", |_| Ok(())).unwrap();
    for _ in 0..(1 << 19) {
        parser.push(b"0123456", |_| Ok(())).unwrap();
    }
    parser
        .push(b"\n\n", |event| {
            length = event.data.len();
            Ok(())
        })
        .unwrap();
    assert_eq!(length, 7 << 19);
}
