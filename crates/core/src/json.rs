//! JSON as Patroni writes and judges it, so that values compare equal as text and golden files match.
//!
//! Two layouts: compact (`,` `:`) in the store and spaced (`, ` `: `) in REST answers. Both escape everything outside
//! ASCII as `\uXXXX`.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;

struct Ascii {
    comma: &'static [u8],
    colon: &'static [u8],
}

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0u16; 2];
        for character in fragment.chars() {
            if character.is_ascii() && character != '\u{7f}' {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.comma) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.comma) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.colon)
    }
}

fn print(value: &impl Serialize, formatter: Ascii) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut serializer).expect("a value made of maps with text keys, lists and scalars always prints");
    String::from_utf8(text).expect("the formatter writes ASCII only")
}

/// The layout of values in the store: `{"a":1,"b":[2,3]}`.
pub fn compact(value: &impl Serialize) -> String {
    print(value, Ascii { comma: b",", colon: b":" })
}

/// The layout of REST answers: `{"a": 1, "b": [2, 3]}`.
pub fn spaced(value: &impl Serialize) -> String {
    print(value, Ascii { comma: b", ", colon: b": " })
}

/// Truth as Python sees it, which is how Patroni judges flags and tags.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_differ_only_in_spaces() {
        let value = serde_json::json!({"b": [1, null], "a": {"x": "é\n\u{1F600}"}});
        assert_eq!(compact(&value), r#"{"b":[1,null],"a":{"x":"\u00e9\n\ud83d\ude00"}}"#);
        assert_eq!(spaced(&value), r#"{"b": [1, null], "a": {"x": "\u00e9\n\ud83d\ude00"}}"#);
    }
}
