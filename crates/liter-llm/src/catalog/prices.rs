//! Prices as the catalogue states them: dated entries, tiers by input length, other ways of processing.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::moment::{Day, Minute, Moment};
use crate::core::cost::Unit;
use crate::core::request::unknown_name;

/// Prices by unit, in US dollars per [`Unit::per`], with those for longer inputs.
///
/// ```
/// use std::time::SystemTime;
/// use liter_llm::{Catalog, Unit, catalog::PriceSet};
///
/// let model = Catalog::shipped().get("openai", "gpt-4o").unwrap();
/// let prices: &PriceSet = &model.prices_at(SystemTime::now()).unwrap().standard;
/// assert!(prices.listed().any(|(unit, _)| unit == Unit::Output));
/// assert!(prices.price(Unit::Input, 1_000).is_some());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceSet {
    prices: Vec<(Unit, Decimal)>,
    /// From the lowest threshold to the highest.
    tiers: Vec<(u64, Vec<(Unit, Decimal)>)>,
}

/// The prices from a day on, or for some hours of the day.
///
/// ```
/// use std::time::SystemTime;
/// use liter_llm::{Catalog, Unit, catalog::{Moment, PriceEntry}};
///
/// let now = SystemTime::now();
/// let model = Catalog::shipped().get("openai", "gpt-4o").unwrap();
/// let entry: &PriceEntry = model.prices_at(now).unwrap();
/// assert!(entry.is_active(Moment::at(now)));
/// assert!(entry.price(entry.modes.get("batch"), Unit::Input, 1_000) < entry.price(None, Unit::Input, 1_000));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceEntry {
    /// The first day (UTC) they are in force; `None`: since ever.
    pub from: Option<Day>,
    /// The hours (UTC) of each day they are in force; `None`: all.
    pub hours: Option<(Minute, Minute)>,
    /// The prices of ordinary calls.
    pub standard: PriceSet,
    /// Prices of other ways of processing (`batch`, `flex`, `priority`, ...); what one leaves out costs as ordinary.
    pub modes: BTreeMap<String, PriceSet>,
}

fn find(prices: &[(Unit, Decimal)], unit: Unit) -> Option<Decimal> {
    prices.iter().find(|(known, _)| *known == unit).map(|(_, price)| *price)
}

impl PriceSet {
    /// The price of a unit in a request with so many input tokens. Above a tier's threshold all tokens of the request
    /// cost the tier's price.
    #[must_use]
    pub fn price(&self, unit: Unit, input_tokens: u64) -> Option<Decimal> {
        let tiers = self.tiers.iter().rev().filter(|(above, _)| input_tokens > *above);
        tiers.into_iter().find_map(|(_, prices)| find(prices, unit)).or_else(|| find(&self.prices, unit))
    }

    /// The units that have a price, and that price for short inputs.
    pub fn listed(&self) -> impl Iterator<Item = (Unit, Decimal)> + '_ {
        self.prices.iter().copied()
    }
}

impl PriceEntry {
    /// Whether it is in force.
    #[must_use]
    pub fn is_active(&self, moment: Moment) -> bool {
        self.from.is_none_or(|from| moment.day >= from) && self.hours.is_none_or(|hours| moment.within(hours))
    }

    /// The price of a unit, for ordinary calls or another way of processing.
    #[must_use]
    pub fn price(&self, mode: Option<&PriceSet>, unit: Unit, input_tokens: u64) -> Option<Decimal> {
        mode.and_then(|mode| mode.price(unit, input_tokens))
            .or_else(|| self.standard.price(unit, input_tokens))
    }
}

/// A name that the schema does not have.
fn unknown(name: &str, more: &[&str]) -> String {
    let units = Unit::ALL.map(Unit::as_str);
    let known: Vec<&str> = units.iter().chain(more).copied().collect();
    format!("`{name}` {}", unknown_name(name, &known, "see the catalogue's schema"))
}

fn object(value: &Value, name: &str) -> Result<Map<String, Value>, String> {
    value.as_object().cloned().ok_or_else(|| format!("`{name}` is not an object"))
}

fn decimal(name: &str, value: &Value) -> Result<Decimal, String> {
    let text =
        value.as_str().ok_or_else(|| format!("`{name}` is not a price written as text, as in \"2.50\""))?;
    let price =
        Decimal::from_str_exact(text).map_err(|_| format!("`{name}`: \"{text}\" is not a decimal number"))?;
    // Room for a trillion tokens at any price below a million dollars.
    match price.is_sign_negative() || price > Decimal::from(1_000_000) || price.scale() > 12 {
        true => {
            Err(format!("`{name}`: {text} is not a price between 0 and 1,000,000 with at most 12 places"))
        }
        false => Ok(price.normalize()),
    }
}

/// Takes the units' prices out of an object.
fn take_prices(map: &mut Map<String, Value>) -> Result<Vec<(Unit, Decimal)>, String> {
    let mut prices = Vec::new();
    for unit in Unit::ALL {
        if let Some(value) = map.remove(unit.as_str()) {
            prices.push((unit, decimal(unit.as_str(), &value)?));
        }
    }
    Ok(prices)
}

fn take_set(map: &mut Map<String, Value>) -> Result<PriceSet, String> {
    let prices = take_prices(map)?;
    let mut tiers = Vec::new();
    if let Some(value) = map.remove("tiers") {
        for tier in value.as_array().ok_or("`tiers` is not a list")? {
            let mut tier = object(tier, "tiers")?;
            let above = tier.remove("above").and_then(|above| above.as_u64());
            let above = above.ok_or("a tier needs `above`, a number of input tokens")?;
            tiers.push((above, take_prices(&mut tier)?));
            if let Some(name) = tier.keys().next() {
                return Err(unknown(name, &["above"]));
            }
        }
    }
    tiers.sort_by_key(|(above, _)| *above);
    Ok(PriceSet { prices, tiers })
}

impl PriceEntry {
    /// Reads an entry from its JSON form.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let mut map = object(value, "prices")?;
        let standard = take_set(&mut map)?;
        let from = match map.remove("from") {
            None | Some(Value::Null) => None,
            Some(value) => Some(
                value
                    .as_str()
                    .and_then(Day::parse)
                    .ok_or_else(|| format!("`from`: {value} is not a day, as in \"2026-11-23\""))?,
            ),
        };
        let hours = match map.remove("hours") {
            None | Some(Value::Null) => None,
            Some(value) => Some(
                hours(&value)
                    .ok_or_else(|| format!("`hours`: {value} is not a pair as in [\"16:30\", \"00:30\"]"))?,
            ),
        };
        let mut modes = BTreeMap::new();
        if let Some(value) = map.remove("modes") {
            for (mode, prices) in object(&value, "modes")? {
                let mut prices = object(&prices, &mode)?;
                let set = take_set(&mut prices)?;
                if let Some(name) = prices.keys().next() {
                    return Err(unknown(name, &["tiers"]));
                }
                modes.insert(mode, set);
            }
        }
        match map.keys().next() {
            Some(name) => Err(unknown(name, &["from", "hours", "tiers", "modes"])),
            None => Ok(Self { from, hours, standard, modes }),
        }
    }
}

fn hours(value: &Value) -> Option<(Minute, Minute)> {
    let [start, end] = value.as_array()?.as_slice() else { return None };
    Some((Minute::parse(start.as_str()?)?, Minute::parse(end.as_str()?)?))
}

/// A tier in its JSON form.
struct Tier<'a>(&'a (u64, Vec<(Unit, Decimal)>));

fn entries<S: SerializeMap>(map: &mut S, prices: &[(Unit, Decimal)]) -> Result<(), S::Error> {
    prices.iter().try_for_each(|(unit, price)| map.serialize_entry(unit.as_str(), &price.to_string()))
}

impl Serialize for Tier<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("above", &self.0.0)?;
        entries(&mut map, &self.0.1)?;
        map.end()
    }
}

fn set_entries<S: SerializeMap>(map: &mut S, set: &PriceSet) -> Result<(), S::Error> {
    entries(map, &set.prices)?;
    if !set.tiers.is_empty() {
        map.serialize_entry("tiers", &set.tiers.iter().map(Tier).collect::<Vec<_>>())?;
    }
    Ok(())
}

impl Serialize for PriceSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        set_entries(&mut map, self)?;
        map.end()
    }
}

impl Serialize for PriceEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(from) = self.from {
            map.serialize_entry("from", &from.to_string())?;
        }
        if let Some((start, end)) = self.hours {
            map.serialize_entry("hours", &[start.to_string(), end.to_string()])?;
        }
        set_entries(&mut map, &self.standard)?;
        if !self.modes.is_empty() {
            map.serialize_entry("modes", &self.modes)?;
        }
        map.end()
    }
}
