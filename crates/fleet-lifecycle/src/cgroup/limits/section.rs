//! One object of `linux.resources`, read strictly: a limit that is not what it should be is never passed over.

use serde_json::{Map, Value};

use super::{CgroupError, Result};

/// An object with its place in the spec.
pub(super) struct Section<'a> {
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The object `name` in `resources`; null counts as absent.
    pub(super) fn of(resources: &'a Value, name: &str) -> Result<Option<Self>> {
        let place = format!("linux.resources.{name}");
        match resources.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { place, map })),
            Some(other) => Err(wrong(&place, "an object", other)),
        }
    }

    /// The objects of the list `name` in `resources`.
    pub(super) fn list_of(resources: &'a Value, name: &str) -> Result<Vec<Self>> {
        objects(resources.get(name), format!("linux.resources.{name}"))
    }

    /// The objects of a list.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Self>> {
        objects(self.map.get(key), format!("{}.{key}", self.place))
    }

    /// All members, as objects.
    pub(super) fn sections(&self) -> Result<Vec<(&'a str, Self)>> {
        let section = |(key, value): (&'a String, &'a Value)| {
            let place = format!("{}.{key}", self.place);
            let map = value
                .as_object()
                .ok_or_else(|| wrong(&place, "an object", value))?;
            Ok((key.as_str(), Self { place, map }))
        };
        self.map.iter().map(section).collect()
    }

    /// All members, as strings.
    pub(super) fn texts(&self) -> Result<Vec<(&'a str, &'a str)>> {
        let text = |(key, value): (&'a String, &'a Value)| {
            let text = value
                .as_str()
                .ok_or_else(|| wrong(&format!("{}.{key}", self.place), "a string", value))?;
            Ok((key.as_str(), text))
        };
        self.map.iter().map(text).collect()
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.value(key)
            .map(|value| {
                read(value).ok_or_else(|| wrong(&format!("{}.{key}", self.place), what, value))
            })
            .transpose()
    }

    /// A whole number; engines write "unlimited" as the largest unsigned one, too, which becomes -1.
    pub(super) fn number(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "a whole number", |value| {
            value.as_i64().or_else(|| value.as_u64().map(|_| -1))
        })
    }

    /// A number where 0 means "not set" and -1 "unlimited".
    pub(super) fn limit(&self, key: &str) -> Result<Option<i64>> {
        match self.number(key)? {
            Some(n) if n < -1 => Err(self.refused(&format!("`{key}` is {n}"))),
            other => Ok(other.filter(|n| *n != 0)),
        }
    }

    pub(super) fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number from 0", Value::as_u64)
    }

    /// A string; an empty one counts as absent.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        Ok(self
            .typed(key, "a string", Value::as_str)?
            .filter(|text| !text.is_empty()))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// An error about this object.
    pub(super) fn refused(&self, why: &str) -> CgroupError {
        CgroupError::Invalid(format!("`{}` cannot be set: {why}", self.place))
    }
}

fn objects(value: Option<&Value>, place: String) -> Result<Vec<Section<'_>>> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value
            .as_array()
            .ok_or_else(|| wrong(&place, "a list", value))?,
    };
    let mut sections = Vec::new();
    for entry in list {
        let map = entry
            .as_object()
            .ok_or_else(|| wrong(&place, "a list of objects", entry))?;
        sections.push(Section {
            place: place.clone(),
            map,
        });
    }
    Ok(sections)
}

fn wrong(place: &str, what: &str, value: &Value) -> CgroupError {
    CgroupError::Invalid(format!("`{place}` is not {what}: {value}"))
}
