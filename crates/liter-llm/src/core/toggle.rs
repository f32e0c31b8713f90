//! An option that is a switch, or the options of what it switches on.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

/// A layer that is off, on with its defaults, or on with options: `false`, `true` or an object.
///
/// ```
/// use liter_llm::{CircuitOptions, HedgeOptions, ProviderConfig, Toggle};
///
/// let config = ProviderConfig {
///     hedge: Some(Toggle::On(HedgeOptions::default())),
///     circuit: Some(Toggle::Off),
///     ..ProviderConfig::new("openai")
/// };
/// assert!(config.hedge.unwrap().options().is_some());
/// assert_eq!(Toggle::<CircuitOptions>::Off.options(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Toggle<T> {
    /// The layer is left out.
    Off,
    /// The layer is there with these options.
    On(T),
}

impl<T: Copy> Toggle<T> {
    /// The options when the layer is on.
    #[must_use]
    pub const fn options(&self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(options) => Some(*options),
        }
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Read<T> {
            type Value = Toggle<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("true, false or an object of options")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Toggle<T>, E> {
                Ok(if on { Toggle::On(T::default()) } else { Toggle::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Toggle<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Toggle::On)
            }
        }

        deserializer.deserialize_any(Read(PhantomData))
    }
}
