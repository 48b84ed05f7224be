//! Sets of member names, compared as PostgreSQL compares `application_name` with `synchronous_standby_names`: without
//! regard to the case of ASCII letters.

use std::collections::BTreeMap;
use std::fmt;

/// A set of names in their order. Each keeps the spelling under which it came first.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Names(BTreeMap<String, String>);

impl Names {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when `name` is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(&name.to_ascii_lowercase())
    }

    /// Adds a name; the spelling of one that is there already stays.
    pub fn insert(&mut self, name: &str) {
        self.0.entry(name.to_ascii_lowercase()).or_insert_with(|| name.to_owned());
    }

    /// In their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.values().map(String::as_str)
    }

    /// These and those.
    #[must_use]
    pub fn union(&self, other: &Names) -> Names {
        let mut all = self.clone();
        other.iter().for_each(|name| all.insert(name));
        all
    }

    /// These and `name`.
    #[must_use]
    pub fn with(&self, name: &str) -> Names {
        let mut all = self.clone();
        all.insert(name);
        all
    }

    /// These without those.
    #[must_use]
    pub fn minus(&self, other: &Names) -> Names {
        self.filter(|name| !other.contains(name))
    }

    /// These without `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Names {
        self.filter(|other| !other.eq_ignore_ascii_case(name))
    }

    /// Those of these that are in `other`, too.
    #[must_use]
    pub fn within(&self, other: &Names) -> Names {
        self.filter(|name| other.contains(name))
    }

    /// True when all of these are in `other`.
    pub fn is_subset(&self, other: &Names) -> bool {
        self.0.keys().all(|name| other.0.contains_key(name))
    }

    /// The first `count` of them.
    #[must_use]
    pub fn first(&self, count: usize) -> Names {
        self.iter().take(count).collect()
    }

    /// The last `count` of them.
    #[must_use]
    pub fn last(&self, count: usize) -> Names {
        self.iter().rev().take(count).collect()
    }

    /// As a list, for `/sync`.
    pub fn to_vec(&self) -> Vec<String> {
        self.0.values().cloned().collect()
    }

    fn filter(&self, keep: impl Fn(&str) -> bool) -> Names {
        self.iter().filter(|name| keep(name)).collect()
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Names) -> bool {
        self.0.keys().eq(other.0.keys())
    }
}

impl Eq for Names {}

impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Names {
        let mut all = Names::default();
        names.into_iter().for_each(|name| all.insert(name));
        all
    }
}

impl From<&Vec<String>> for Names {
    fn from(names: &Vec<String>) -> Names {
        names.iter().map(String::as_str).collect()
    }
}

impl From<Vec<String>> for Names {
    fn from(names: Vec<String>) -> Names {
        Names::from(&names)
    }
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Vec<String> {
        names.0.into_values().collect()
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
