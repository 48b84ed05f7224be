//! Effects as a story tells them.

pub(crate) use pgward_core::explain::words::effect as in_words;
