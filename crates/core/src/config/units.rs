//! Values as PostgreSQL and Patroni read them from text: booleans, integers, sizes and durations with units.

use serde_json::Value;

/// `on`, `true`, `yes`, `1` and their opposites, in any case; `None` for anything else.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// [`parse_bool`] for a value of any type.
pub fn bool_of(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(_) | Value::String(_) => parse_bool(&text_of(value)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text of a scalar as PostgreSQL would get it: booleans are `on` and `off`.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => crate::json::compact(value),
    }
}

/// The text by which two values count as the same when a document is changed: `2` equals `"2"`.
pub(super) fn comparison_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => crate::json::compact(value),
    }
}

/// What a number with a unit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Memory,
    Time,
}

/// A unit: its name, and how many of the next smaller unit it holds.
const MEMORY: [(&str, f64); 5] = [("TB", 1024.0), ("GB", 1024.0), ("MB", 1024.0), ("kB", 1024.0), ("B", 1.0)];
const TIME: [(&str, f64); 6] = [("d", 24.0), ("h", 60.0), ("min", 60.0), ("s", 1000.0), ("ms", 1000.0), ("us", 1.0)];

fn units(dimension: Dimension) -> &'static [(&'static str, f64)] {
    match dimension {
        Dimension::Memory => &MEMORY,
        Dimension::Time => &TIME,
    }
}

/// The size of `unit` in the smallest unit of its dimension. `unit` may have a factor, as in `8kB` (pg_settings).
fn unit_size(unit: &str) -> Option<(Dimension, f64)> {
    let digits = unit.len() - unit.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (factor, name) = unit.split_at(digits);
    let factor: f64 = if factor.is_empty() { 1.0 } else { factor.parse().ok()? };
    [Dimension::Memory, Dimension::Time].into_iter().find_map(|dimension| {
        let table = units(dimension);
        let at = table.iter().position(|(candidate, _)| *candidate == name)?;
        Some((dimension, factor * table[at..].iter().map(|(_, holds)| holds).product::<f64>()))
    })
}

/// An integer in PostgreSQL's notation, optionally with a unit, converted to `base_unit`.
///
/// `base_unit` is what pg_settings calls the unit of a parameter, such as `8kB` or `ms`. Without it a unit in the text is
/// invalid. Fractions are rounded half to even, first to the next smaller unit and then to the base unit.
pub fn parse_int(text: &str, base_unit: Option<&str>) -> Option<i64> {
    let (number, unit) = split_number(text)?;
    let value = match unit {
        "" => number,
        unit => convert(number, unit, base_unit?)?,
    };
    to_i64(value.round_ties_even())
}

/// A real number in PostgreSQL's notation, optionally with a unit, converted to `base_unit`.
pub fn parse_real(text: &str, base_unit: Option<&str>) -> Option<f64> {
    let (number, unit) = split_number(text)?;
    match unit {
        "" => Some(number),
        unit => {
            let ((from, size), (to, base)) = (unit_size(unit)?, unit_size(base_unit?)?);
            (from == to).then_some(number * size / base)
        }
    }
}

/// The seconds that a configuration value means; a bare number is seconds already.
pub fn seconds_of(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Number(_) | Value::String(_) => parse_int(&text_of(value), Some("s")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn convert(number: f64, unit: &str, base_unit: &str) -> Option<f64> {
    let ((from, size), (to, base)) = (unit_size(unit)?, unit_size(base_unit)?);
    if from != to {
        return None;
    }
    let table = units(from);
    let at = table.iter().position(|(candidate, _)| *candidate == unit)?;
    // "1.5GB" is 1536 MB; "1.0001kB" is a whole number of bytes.
    let (number, size) = match table.get(at + 1) {
        Some(_) => ((number * table[at].1).round_ties_even(), size / table[at].1),
        None => (number, size),
    };
    Some(number * size / base)
}

/// Splits `-1.5 GB` into the number and the unit.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let is_real = {
        let digits = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
        digits.starts_with(['.', 'e', 'E'])
    };
    let (number, rest) = if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        split_radix(hex, 16)?
    } else if unsigned.starts_with('0') && unsigned.len() > 1 && !is_real {
        split_radix(unsigned, 8)?
    } else {
        split_decimal(unsigned)?
    };
    Some((sign * number, rest.trim()))
}

fn split_radix(text: &str, radix: u32) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((u64::from_str_radix(digits, radix).ok()? as f64, rest))
}

fn split_decimal(text: &str) -> Option<(f64, &str)> {
    let bytes = text.as_bytes();
    let digits_from = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits_from(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits_from(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent_end = digits_from((end + 1 + sign).min(bytes.len()));
        if exponent_end > end + 1 + sign {
            end = exponent_end;
        }
    }
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

fn to_i64(value: f64) -> Option<i64> {
    // 2^63 is exact in a double; everything below it fits.
    (value.is_finite() && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value))
        .then_some(value as i64)
}

/// How pg_settings types a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterType {
    /// `bool`.
    Bool,
    /// `integer`.
    Integer,
    /// `real`.
    Real,
    /// `enum`.
    Enum,
    /// `string`.
    String,
}

impl ParameterType {
    /// Reads `vartype`; an unknown one compares as text.
    pub fn from_vartype(vartype: &str) -> ParameterType {
        match vartype {
            "bool" => ParameterType::Bool,
            "integer" => ParameterType::Integer,
            "real" => ParameterType::Real,
            "enum" => ParameterType::Enum,
            _ => ParameterType::String,
        }
    }
}

/// True when two texts mean the same value of a parameter, so that writing one over the other changes nothing.
///
/// `unit` is the parameter's unit in pg_settings: a text without a unit is in that unit.
pub fn is_same_setting(kind: ParameterType, unit: Option<&str>, one: &str, other: &str) -> bool {
    let unit = unit.filter(|unit| !unit.is_empty());
    let same = match kind {
        ParameterType::Bool => equal_if_known(parse_bool(one), parse_bool(other)),
        ParameterType::Integer => equal_if_known(parse_int(one, unit), parse_int(other, unit)),
        ParameterType::Real => equal_if_known(parse_real(one, unit), parse_real(other, unit)),
        ParameterType::Enum => Some(one.eq_ignore_ascii_case(other)),
        ParameterType::String => Some(one == other),
    };
    same.unwrap_or(one == other)
}

fn equal_if_known<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<bool> {
    Some(one? == other?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_signs_bases_and_units() {
        for (text, unit, want) in [
            ("5", None, Some(5)),
            (" -5 ", None, Some(-5)),
            ("+7", None, Some(7)),
            ("0x1f", None, Some(31)),
            ("0600", None, Some(384)),
            ("0", None, Some(0)),
            ("1.5", None, Some(2)),
            ("2.5", None, Some(2)),
            ("1e3", None, Some(1000)),
            ("0.5", None, Some(0)),
            ("128MB", Some("MB"), Some(128)),
            ("1GB", Some("8kB"), Some(131_072)),
            ("1.5GB", Some("MB"), Some(1536)),
            ("8192B", Some("8kB"), Some(1)),
            ("30min", Some("s"), Some(1800)),
            ("1h", Some("min"), Some(60)),
            ("1d", Some("ms"), Some(86_400_000)),
            ("1500ms", Some("s"), Some(2)),
            ("1 min", Some("s"), Some(60)),
            ("30", Some("s"), Some(30)),
            ("1GB", None, None),
            ("1GB", Some("s"), None),
            ("1mb", Some("MB"), None),
            ("x", None, None),
            ("", None, None),
            ("1e400", None, None),
        ] {
            assert_eq!(parse_int(text, unit), want, "{text} in {unit:?}");
        }
    }

    #[test]
    fn settings_are_compared_by_meaning() {
        use ParameterType::*;
        for (kind, unit, one, other, want) in [
            (Bool, None, "on", "TRUE", true),
            (Bool, None, "on", "off", false),
            (Integer, Some("8kB"), "128MB", "16384", true),
            (Integer, Some("8kB"), "128MB", "16385", false),
            (Integer, Some("s"), "5min", "300", true),
            (Real, None, "0.90", "0.9", true),
            (Real, Some("ms"), "2s", "2000", true),
            (Enum, None, "Replica", "replica", true),
            (String, None, "a", "A", false),
            (Bool, None, "maybe", "maybe", true),
        ] {
            assert_eq!(is_same_setting(kind, unit, one, other), want, "{kind:?} {one} {other}");
        }
    }

    #[test]
    fn durations_are_seconds_unless_they_say_otherwise() {
        use serde_json::json;
        for (value, want) in
            [(json!(30), Some(30)), (json!("30"), Some(30)), (json!("30min"), Some(1800)), (json!([]), None)]
        {
            assert_eq!(seconds_of(&value), want, "{value}");
        }
    }
}
