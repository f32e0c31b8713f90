//! Broken and cut frames never panic, and what comes in pieces is told as it comes.

use proptest::prelude::*;

use super::shapes::{deltas, failed, stream, whole};
use crate::core::chunk::Delta;
use crate::core::fold::fold;

const FRAMES: [&str; 6] = [
    r#"{"id":"i","model":"m","choices":[{"index":0,"delta":{"role":"assistant","reasoning":"r","reasoning_details":[{"type":"reasoning.text","index":0,"text":"r"}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"é\n","refusal":null,"annotations":[{"a":1}]},"logprobs":{"content":[{"token":"a"}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}],"audio":{"id":"a","data":"AA=="}}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2.0}}"#,
    "[DONE]",
];

proptest! {
    #[test]
    fn broken_frames_never_panic(
        edits in proptest::collection::vec((0..6_usize, 0..300_usize, any::<char>(), any::<bool>()), 0..6),
        keep in 0..=6_usize,
    ) {
        let mut frames: Vec<Vec<char>> = FRAMES.iter().map(|frame| frame.chars().collect()).collect();
        for (frame, place, letter, cut) in edits {
            let frame = &mut frames[frame];
            if cut {
                frame.truncate(place);
            } else if place < frame.len() {
                frame[place] = letter;
            }
        }
        let frames: Vec<String> = frames.into_iter().take(keep).map(|frame| frame.into_iter().collect()).collect();
        let data: Vec<&str> = frames.iter().map(String::as_str).collect();
        let (chunks, _) = stream(&data);
        let _ = fold(&chunks);
        for frame in data {
            let _ = whole(frame);
            let _ = failed(400, frame);
        }
    }

    #[test]
    fn text_in_any_pieces_is_the_same_text(parts in proptest::collection::vec(".{0,8}", 1..12)) {
        let pieces: Vec<String> = parts.iter().map(|part| serde_json::json!({ "content": part }).to_string()).collect();
        let read = deltas(&pieces.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(read.text(), parts.concat());
    }
}

#[test]
fn deltas_are_told_as_they_come() {
    let (chunks, _) = stream(&FRAMES);
    let kinds: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk.delta.as_ref())
        .map(|delta| match delta {
            Delta::Start(_) => "start",
            Delta::Text(_) => "text",
            Delta::Reasoning(_) => "reasoning",
            Delta::Arguments(_) => "arguments",
            Delta::Citation(_) => "citation",
            Delta::Replace(_) => "replace",
            Delta::Signature(_) => "signature",
        })
        .collect();
    // The call begins, sound begins before its arguments end, and the whole of details and sound closes the answer.
    assert_eq!(
        kinds,
        ["reasoning", "text", "citation", "start", "start", "arguments", "reasoning", "replace", "replace"]
    );
}
