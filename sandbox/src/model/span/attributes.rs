//! The attributes of a span or a resource, by name.
//!
//! In: a list of attributes. Out: their values, by the first of several names that is there. An
//! attribute that a part of the document shows is taken, so that it is not in the metadata too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use xrayd_otlp::message::{Any, AnyValue, KeyValue};

/// Attributes by name. If a name is there several times, the last value counts.
#[derive(Debug)]
pub struct Attributes<'a> {
    values: BTreeMap<&'a str, &'a AnyValue>,
    taken: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Attributes<'a> {
    pub fn new(list: &'a [KeyValue]) -> Self {
        let pairs = list.iter().filter_map(|it| Some((it.key.as_str(), it.value.as_ref()?)));
        let values = pairs.filter(|(key, _)| !key.is_empty()).collect();
        Self { values, taken: RefCell::default() }
    }

    /// Returns the value of an attribute.
    pub fn get(&self, key: &str) -> Option<&'a Any> {
        self.values.get(key)?.value.as_ref()
    }

    /// Returns the text of an attribute, or `None` if it is missing, empty or no text.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        match self.get(key)? {
            Any::Text(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            _ => None,
        }
    }

    /// Returns the text of the first of these attributes that has one.
    pub fn first(&self, keys: &[&str]) -> Option<&'a str> {
        keys.iter().find_map(|key| self.text(key))
    }

    /// Like [`Self::first`], and takes all attributes with these names.
    pub fn take(&self, keys: &[&str]) -> Option<&'a str> {
        self.mark(keys);
        self.first(keys)
    }

    /// Takes these attributes, and returns the first of them that is an integer, or a text with
    /// one.
    pub fn take_integer(&self, keys: &[&str]) -> Option<i64> {
        self.mark(keys);
        self.integer(keys)
    }

    /// Returns the first of these attributes that is an integer, or a text with one.
    pub fn integer(&self, keys: &[&str]) -> Option<i64> {
        keys.iter().find_map(|key| match self.get(key)? {
            Any::Int(value) => Some(*value),
            Any::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    /// Returns the first of these attributes that is a text or an integer, as text, and takes all
    /// of them.
    pub fn take_shown(&self, keys: &[&str]) -> Option<String> {
        self.mark(keys);
        keys.iter().find_map(|key| match self.get(key)? {
            Any::Int(value) => Some(value.to_string()),
            _ => self.text(key).map(str::to_owned),
        })
    }

    /// Returns the texts of an attribute that is a list of texts, or one text.
    pub fn texts(&self, key: &str) -> Vec<&'a str> {
        match self.get(key) {
            Some(Any::Text(text)) => vec![text],
            Some(Any::List(list)) => {
                let texts = list.values.iter().filter_map(|value| match &value.value {
                    Some(Any::Text(text)) => Some(text.as_str()),
                    _ => None,
                });
                texts.collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes these attributes: another part of the document shows them.
    pub fn mark(&self, keys: &[&str]) {
        let held = keys.iter().filter_map(|key| self.values.get_key_value(*key));
        self.taken.borrow_mut().extend(held.map(|(key, _)| *key));
    }

    /// Returns the attributes that were not taken, in the order of their names.
    pub fn rest(&self) -> Vec<(&'a str, &'a AnyValue)> {
        let taken = self.taken.borrow();
        let rest = self.values.iter().filter(|(key, _)| !taken.contains(*key));
        rest.map(|(key, value)| (*key, *value)).collect()
    }
}
