//! Field decoders that take what servers and gateways really send: `null`, numbers as strings, and values of another
//! type than promised, which count as absent.

use std::{fmt, marker::PhantomData};

use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
    value::MapAccessDeserializer,
};
use serde_json::value::RawValue;

/// A count: a number, or a number in a string.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(match as_text(&raw) {
        Some(text) => text.trim().parse().ok(),
        None => whole(raw.get()),
    })
}

fn whole(number: &str) -> Option<u64> {
    // `12.0` is how some gateways write twelve; beyond 2^53 a float does not count exactly any more.
    let is_exact = |float: &f64| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(float);
    number.parse().ok().or_else(|| number.parse().ok().filter(is_exact).map(|float| float as u64))
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(as_text(&Box::<RawValue>::deserialize(deserializer)?))
}

// Also half a character, as `\ud83d` alone, and a number that is too large make no text, and no error of the whole response.
fn as_text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// An open enum: a name. Numbers differ between Google's two APIs, so they are never decoded.
pub(super) fn name<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: for<'a> From<&'a str>,
{
    Ok(text(deserializer)?.map(|text| T::from(&text)))
}

/// An object; an empty list, as some languages write an empty object, counts as absent like everything else.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    // A struct would be read from a list as well, field by field.
    let raw = raw.filter(|raw| raw.get().starts_with('{'));
    Ok(raw.and_then(|raw| serde_json::from_str(raw.get()).ok()))
}

/// The same for what can be large, and is read as it comes. What is wrong inside of it is wrong with the whole.
pub(super) fn large_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Large(PhantomData))
}

struct Large<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Large<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<T>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<T>, E> {
        Ok(None)
    }
}

/// A list that may be `null`.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
