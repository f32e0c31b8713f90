//! The fields of a JSON object, borrowed from its text: how adapters read objects whose unknown fields must survive.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON object's fields, borrowed, in order. Of a name that stands there twice the last value counts.
///
/// A plain list, searched from end to end: objects of providers have a dozen fields, and for those hashing every
/// name costs several times what comparing lengths does.
///
/// `#[serde(flatten)]` cannot be used for this: it buffers values in a form in which raw JSON is lost.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Vec<Field<'a>>);

/// A name and its value.
type Field<'a> = (Cow<'a, str>, &'a RawValue);

/// A field's name, borrowed where the JSON has no escapes in it.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Up to this many fields a name is looked for among those before it; more are sorted out at the end, so that an
/// object with very many fields costs no more than its length.
const SEARCHED: usize = 32;

/// Each name once, where it stood first, with its last value.
fn unique(fields: Vec<Field<'_>>) -> Vec<Field<'_>> {
    fields.into_iter().collect::<IndexMap<_, _>>().into_iter().collect()
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<Field<'de>> = Vec::with_capacity(8);
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    let searched = if fields.len() < SEARCHED { &mut fields[..] } else { &mut [] };
                    match searched.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, earlier)) => *earlier = value,
                        None => fields.push((name, value)),
                    }
                }
                if fields.len() > SEARCHED {
                    fields = unique(fields);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'a> Fields<'a> {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a field of this name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&&'a RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Takes a field out; the others keep their order.
    pub fn shift_remove(&mut self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(found).1)
    }

    /// Keeps the fields that say something: those that are not `null`.
    pub fn drop_nulls(&mut self) {
        self.0.retain(|(_, value)| value.get() != "null");
    }

    /// Takes fields up; a value whose name is there already takes that one's place.
    pub fn extend(&mut self, more: Self) {
        for (name, value) in more.0 {
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, earlier)) => *earlier = value,
                None => self.0.push((name, value)),
            }
        }
    }

    /// The names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &&'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

impl<'a> IntoIterator for Fields<'a> {
    type Item = (String, &'a RawValue);
    type IntoIter = std::iter::Map<std::vec::IntoIter<Field<'a>>, fn(Field<'a>) -> (String, &'a RawValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_a_name_that_stands_there_twice_the_last_counts() {
        let mut read: Fields<'_> = serde_json::from_str(r#"{"a":1,"b":2,"a":3,"\u0063":4}"#).unwrap();
        assert_eq!(read.get("a").unwrap().get(), "3");
        assert_eq!(read.shift_remove("a").unwrap().get(), "3");
        assert!(read.shift_remove("a").is_none() && read.contains_key("c"));
        assert_eq!(read.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"b":2,"c":4}"#);
    }

    #[test]
    fn very_many_fields_are_read_in_one_pass() {
        let names: Vec<String> =
            (0..200_000).map(|index| format!(r#""x{}":{index}"#, index % 150_000)).collect();
        let text = format!("{{{}}}", names.join(","));
        let begun = std::time::Instant::now();
        let mut read: Fields<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(read.keys().count(), 150_000);
        assert_eq!(read.shift_remove("x7").unwrap().get(), "150007");
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    }
}
