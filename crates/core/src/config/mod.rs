//! The configuration: what the file and the store say, checked.
