//! Writes JSON straight into bytes, so that raw JSON passes through untouched.

use serde::Serialize;

/// A JSON document in the making. Commas are set by looking at the last byte: after `{` or `[` none is needed.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
}

impl Body {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn separate(&mut self) {
        if !matches!(self.bytes.last(), None | Some(b'{' | b'[' | b':')) {
            self.bytes.push(b',');
        }
    }

    /// Starts an object: as a value after [`key`](Self::key), or as the next item of an array.
    pub(super) fn open_object(&mut self) {
        self.separate();
        self.bytes.push(b'{');
    }

    pub(super) fn close_object(&mut self) {
        self.bytes.push(b'}');
    }

    /// Starts an array: as a value after [`key`](Self::key), or as the next item of an array.
    pub(super) fn open_array(&mut self) {
        self.separate();
        self.bytes.push(b'[');
    }

    pub(super) fn close_array(&mut self) {
        self.bytes.push(b']');
    }

    /// The name of the next field.
    pub(super) fn key(&mut self, name: &str) {
        self.separate();
        self.write(name);
        self.bytes.push(b':');
    }

    /// JSON text as it is: as a value after [`key`](Self::key), or as the next item of an array.
    pub(super) fn raw(&mut self, json: &str) {
        self.separate();
        self.bytes.extend_from_slice(json.as_bytes());
    }

    /// A whole field.
    pub(super) fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self.write(value);
    }

    /// A whole field whose value is JSON text.
    pub(super) fn raw_field(&mut self, name: &str, json: &str) {
        self.key(name);
        self.raw(json);
    }

    /// A value after [`key`](Self::key).
    pub(super) fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        self.write(value);
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) {
        let before = self.bytes.len();
        // Strings, numbers, booleans, raw JSON and maps of them always have a JSON form, and a `Vec` takes every
        // byte; `null` only keeps the document well formed should that ever change.
        if serde_json::to_writer(&mut self.bytes, value).is_err() {
            self.bytes.truncate(before);
            self.bytes.extend_from_slice(b"null");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_where_they_belong() {
        let mut body = Body::default();
        body.open_object();
        body.field("a", "x{");
        body.key("b");
        body.open_array();
        body.raw("1.0");
        body.open_object();
        body.close_object();
        body.raw("[]");
        body.close_array();
        body.raw_field("c", "{ }");
        body.close_object();
        assert_eq!(String::from_utf8_lossy(&body.into_bytes()), r#"{"a":"x{","b":[1.0,{},[]],"c":{ }}"#);
    }
}
