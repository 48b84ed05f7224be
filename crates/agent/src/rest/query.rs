//! Query parameters of health checks.

/// The parameters of a query string: the first of several with one name counts, and those without a value do not
/// count at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`. What is not `name=value` is ignored.
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (decode(name), decode(value)));
        Query(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str())
    }

    /// The tags that have to match, from the parameters `tag_<name>`.
    pub fn tags(&self) -> Vec<(&str, &str)> {
        let mut tags = Vec::new();
        for (name, value) in &self.0 {
            if let Some(tag) = name.strip_prefix("tag_")
                && !tags.iter().any(|(earlier, _)| *earlier == tag)
            {
                tags.push((tag, value.as_str()));
            }
        }
        tags
    }

    /// A number of bytes such as `1048576`, `16MB` or `0x10kB`; `None` when it is missing or not one.
    pub fn bytes(&self, name: &str) -> Option<i128> {
        self.get(name).and_then(parse_bytes)
    }
}

/// Undoes `%41` and `+`. A broken escape stays as it is.
fn decode(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Reads a size as PostgreSQL reads a memory setting: a number, and one of the units `B kB MB GB TB`.
fn parse_bytes(text: &str) -> Option<i128> {
    let text = text.trim();
    let unsigned = text.trim_start_matches(['+', '-']);
    if text.len() - unsigned.len() > 1 {
        return None;
    }
    let negative = text.starts_with('-');
    let (radix, digits) = if let Some(digits) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        (16, digits)
    } else if unsigned.len() > 1 && unsigned.starts_with('0') && unsigned[1..].starts_with(|c: char| c.is_ascii_digit())
    {
        (8, &unsigned[1..])
    } else {
        (10, unsigned)
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let is_fraction = radix == 10 && digits[end..].starts_with(['.', 'e', 'E']);
    let bytes = if is_fraction {
        let end = fraction_end(digits);
        let value: f64 = digits[..end].parse().ok()?;
        let bytes = value * factor(&digits[end..])? as f64;
        // Far beyond any position; also keeps the conversion exact.
        (bytes.is_finite() && bytes < 1e30).then_some(bytes.round_ties_even() as i128)?
    } else {
        let value = i128::from(u64::from_str_radix(&digits[..end], radix).ok()?);
        value.checked_mul(factor(&digits[end..])?)?
    };
    Some(if negative { -bytes } else { bytes })
}

/// Where a number like `1.5e3` ends.
fn fraction_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(&byte) = bytes.get(end) {
        let after_exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        let is_exponent = matches!(byte, b'e' | b'E')
            && bytes.get(end + 1).is_some_and(|next| next.is_ascii_digit() || matches!(next, b'+' | b'-'));
        let is_part =
            byte.is_ascii_digit() || byte == b'.' || is_exponent || (after_exponent && matches!(byte, b'+' | b'-'));
        if !is_part {
            break;
        }
        end += 1;
    }
    end
}

fn factor(unit: &str) -> Option<i128> {
    Some(match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_postgresql_reads_them() {
        for (text, want) in [
            ("1", Some(1)),
            (" 10MB ", Some(10 << 20)),
            ("1 kB", Some(1024)),
            ("1.5kB", Some(1536)),
            ("1e3", Some(1000)),
            ("1e3kB", Some(1_024_000)),
            (".5MB", Some(1 << 19)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("-5", Some(-5)),
            ("16TB", Some(16 << 40)),
            ("junk", None),
            ("10mb", None),
            ("1 x", None),
            ("--1", None),
            ("", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
            ("1e400", None),
            ("0x", None),
            ("é", None),
            ("1é", None),
        ] {
            assert_eq!(parse_bytes(text), want, "{text:?}");
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts_and_empty_ones_do_not() {
        let query = Query::parse("tag_az=&tag_az=eu%2D1&tag_az=b&x&lag=1+kB&tag_a+b=%zz&replication_state=x");
        assert_eq!(query.tags(), [("az", "eu-1"), ("a b", "%zz")]);
        assert_eq!((query.get("lag"), query.bytes("lag")), (Some("1 kB"), Some(1024)));
        assert_eq!((query.get("x"), query.bytes("nosuch")), (None, None));
    }
}
