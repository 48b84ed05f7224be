//! What a plain scalar means: the rules of YAML 1.1 exactly as PyYAML's safe loader applies them.
//!
//! They differ from YAML 1.2 and from most parsers where people write them: `on` is true, `y` is text, `0600` is octal,
//! `1:30` is ninety, `1e3` is text, `1_000` is a thousand.

use serde_json::{Number, Value};

/// A resolved plain scalar.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resolved {
    /// Null, a boolean, a number or text.
    Value(Value),
    /// A date or a time. JSON has none, so the text stays.
    Timestamp,
    /// `<<`: as a key, the mapping to merge in.
    Merge,
}

/// The resolution of an unquoted, untagged scalar.
pub(super) fn resolve(text: &str) -> Resolved {
    if let Some(value) = null(text).or_else(|| boolean(text)) {
        return Resolved::Value(value);
    }
    match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') => {
            if is_timestamp(text) {
                return Resolved::Timestamp;
            }
            Resolved::Value(float(text).or_else(|| integer(text)).unwrap_or_else(|| Value::from(text)))
        }
        Some(b'<') if text == "<<" => Resolved::Merge,
        Some(_) | None => Resolved::Value(Value::from(text)),
    }
}

/// `~`, the empty scalar, and the word.
pub(super) fn null(text: &str) -> Option<Value> {
    matches!(text, "" | "~" | "null" | "Null" | "NULL").then_some(Value::Null)
}

/// The words in their three spellings; `y` and `n` are not among them.
pub(super) fn boolean(text: &str) -> Option<Value> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Value::Bool(true)),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// Binary, octal, decimal, hexadecimal and base-60 integers, `_` between digits.
pub(super) fn integer(text: &str) -> Option<Value> {
    let (negative, body) = split_sign(text);
    let digits = body.replace('_', "");
    let magnitude = if body == "0" {
        Some(Magnitude::Small(0))
    } else if let Some(binary) = body.strip_prefix("0b") {
        is_run_of(binary, |c| matches!(c, '0' | '1')).then(|| Magnitude::parse(&digits[2..], 2))?
    } else if let Some(hex) = body.strip_prefix("0x") {
        is_run_of(hex, |c| c.is_ascii_hexdigit()).then(|| Magnitude::parse(&digits[2..], 16))?
    } else if let Some(octal) = body.strip_prefix('0') {
        is_run_of(octal, |c| matches!(c, '0'..='7')).then(|| Magnitude::parse(&digits, 8))?
    } else if body.contains(':') {
        is_base60(body).then(|| base60(&digits))?
    } else {
        let starts = body.starts_with(|c: char| matches!(c, '1'..='9'));
        (starts && is_run_of(body, |c| c.is_ascii_digit())).then(|| Magnitude::parse(&digits, 10))?
    }?;
    Some(Value::Number(magnitude.signed(negative)))
}

/// Decimal and base-60 reals. An exponent needs a sign and a point before it.
pub(super) fn float(text: &str) -> Option<Value> {
    let (negative, body) = split_sign(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Value::from(text)); // JSON has neither, and no setting means one.
    }
    let (whole, rest) = body.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let is_digits = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '_');
    let starts_with_digit = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    let exponent_holds = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']);
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let seconds = if whole.contains(':') {
        let holds = exponent.is_none() && is_base60_real(whole) && is_digits(fraction);
        let parts = holds.then(|| whole.replace('_', ""))?;
        let leading = parts.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))?;
        let fraction = format!("0.{}0", fraction.replace('_', ""));
        leading + fraction.parse::<f64>().ok()?
    } else {
        let holds = match whole {
            "" => text.starts_with('.') && starts_with_digit(fraction) && is_digits(fraction),
            whole => starts_with_digit(whole) && is_digits(whole) && is_digits(fraction),
        };
        let number = (holds && exponent_holds).then(|| body.replace('_', ""))?;
        number.parse::<f64>().ok()?
    };
    let signed = if negative { -seconds } else { seconds };
    Some(Number::from_f64(signed).map_or_else(|| Value::from(text), Value::Number))
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) | None => (false, text),
    }
}

fn is_run_of(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(|c| c == '_' || allowed(c))
}

/// `1:30`, `12:30:00`: the first part starts with 1 to 9, the others are below 60.
fn is_base60(body: &str) -> bool {
    body.starts_with(|c: char| matches!(c, '1'..='9')) && is_base60_real(body)
}

fn is_base60_real(body: &str) -> bool {
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or_default();
    first.starts_with(|c: char| c.is_ascii_digit())
        && is_run_of(first, |c| c.is_ascii_digit())
        && parts.all(|part| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']))
}

fn base60(digits: &str) -> Option<Magnitude> {
    let mut sum: u64 = 0;
    for part in digits.split(':') {
        sum = sum.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    Some(Magnitude::Small(sum))
}

/// An integer without its sign: exact where JSON numbers are, else the nearest double.
enum Magnitude {
    Small(u64),
    Large(f64),
}

impl Magnitude {
    fn parse(digits: &str, radix: u32) -> Option<Magnitude> {
        match u64::from_str_radix(digits, radix) {
            Ok(number) => Some(Magnitude::Small(number)),
            Err(_) if digits.is_empty() => None,
            Err(_) => digits
                .chars()
                .try_fold(0.0, |sum, c| Some(sum * f64::from(radix) + f64::from(c.to_digit(radix)?)))
                .map(Magnitude::Large),
        }
    }

    fn signed(self, negative: bool) -> Number {
        let large = |number: f64| {
            let finite = if number.is_finite() { number } else { f64::MAX };
            Number::from_f64(if negative { -finite } else { finite }).unwrap_or_else(|| Number::from(0))
        };
        match self {
            Magnitude::Small(number) if !negative => Number::from(number),
            Magnitude::Small(number) => match 0i64.checked_sub_unsigned(number) {
                Some(number) => Number::from(number),
                None => large(number as f64),
            },
            Magnitude::Large(number) => large(number),
        }
    }
}

/// `2024-02-12`, or a date and a time.
fn is_timestamp(text: &str) -> bool {
    let mut at = Cursor(text);
    if !(at.digits(4, 4) && at.one('-')) {
        return false;
    }
    let (month, day) = (at.digits_count(1, 2), at.one('-').then(|| at.digits_count(1, 2)).flatten());
    let (Some(month), Some(day)) = (month, day) else { return false };
    if at.0.is_empty() {
        return month == 2 && day == 2;
    }
    let spaced = at.skip([' ', '\t']) > 0;
    if !(spaced || at.one('T') || at.one('t')) {
        return false;
    }
    let has_time = at.digits(1, 2) && at.one(':') && at.digits(2, 2) && at.one(':') && at.digits(2, 2);
    if !has_time {
        return false;
    }
    if at.one('.') {
        at.0 = at.0.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    if at.0.is_empty() {
        return true;
    }
    at.skip([' ', '\t']);
    if at.one('Z') {
        return at.0.is_empty();
    }
    let has_zone = (at.one('+') || at.one('-')) && at.digits(1, 2);
    has_zone && (at.0.is_empty() || (at.one(':') && at.digits(2, 2) && at.0.is_empty()))
}

struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn one(&mut self, c: char) -> bool {
        self.0.strip_prefix(c).inspect(|rest| self.0 = rest).is_some()
    }

    fn skip(&mut self, set: [char; 2]) -> usize {
        let rest = self.0.trim_start_matches(set);
        let skipped = self.0.len() - rest.len();
        self.0 = rest;
        skipped
    }

    fn digits_count(&mut self, least: usize, most: usize) -> Option<usize> {
        let count = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        (count >= least).then(|| {
            self.0 = &self.0[count..];
            count
        })
    }

    fn digits(&mut self, least: usize, most: usize) -> bool {
        self.digits_count(least, most).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_mean_what_pyyaml_reads() {
        for (text, want) in [
            ("on", json!(true)),
            ("YES", json!(true)),
            ("Off", json!(false)),
            ("oN", json!("oN")),
            ("y", json!("y")),
            ("n", json!("n")),
            ("~", json!(null)),
            ("", json!(null)),
            ("0600", json!(384)),
            ("0o17", json!("0o17")),
            ("089", json!("089")),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("-0x1f", json!(-31)),
            ("1_000", json!(1000)),
            ("+5", json!(5)),
            ("-0", json!(0)),
            ("00", json!(0)),
            ("_1", json!("_1")),
            ("1:30", json!(90)),
            ("12:30:00", json!(45000)),
            ("1:60", json!("1:60")),
            ("0:30", json!("0:30")),
            ("190:20:30.15", json!(685230.15)),
            ("0:30.5", json!(30.5)),
            ("1e3", json!("1e3")),
            ("1.5e3", json!("1.5e3")),
            ("1.5e+6", json!(1500000.0)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-.5", json!("-.5")),
            ("._5", json!("._5")),
            ("0.7", json!(0.7)),
            ("1.2.3", json!("1.2.3")),
            ("10.0.0.1:5432", json!("10.0.0.1:5432")),
            ("127.0.0.1", json!("127.0.0.1")),
            (".inf", json!(".inf")),
            ("-", json!("-")),
            ("+", json!("+")),
            (".", json!(".")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("=", json!("=")),
        ] {
            assert_eq!(resolve(text), Resolved::Value(want), "{text}");
        }
        assert_eq!(resolve("<<"), Resolved::Merge);
    }

    #[test]
    fn dates_are_recognised() {
        for text in [
            "2024-02-12",
            "2024-02-12 10:00:00",
            "2024-2-1T1:00:00.5Z",
            "2024-02-12t10:00:00 +02:00",
            "2001-12-14 21:59:43.10 -5",
        ] {
            assert_eq!(resolve(text), Resolved::Timestamp, "{text}");
        }
        for text in ["2024-2-12", "2024-02-12 10:00", "2024-02-12x", "2024-02", "2024-02-12T10:00:00+2:0"] {
            assert_eq!(resolve(text), Resolved::Value(json!(text)), "{text}");
        }
    }
}
