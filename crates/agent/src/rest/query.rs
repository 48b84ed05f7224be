//! Query parameters of health checks.

use pgward_core::config::units::parse_int;

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
        self.get(name).and_then(|text| parse_int(text, Some("B"))).map(i128::from)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_size_and_anything_else_is_none() {
        for (text, want) in [
            ("lag=1", Some(1)),
            ("lag=10MB", Some(10 << 20)),
            ("lag=1.5kB", Some(1536)),
            ("lag=-5", Some(-5)),
            ("lag=junk", None),
            ("lag=10mb", None),
            ("lag=10s", None),
            ("lag=%C3%A9", None),
            ("lag=1e400", None),
            ("", None),
        ] {
            assert_eq!(Query::parse(text).bytes("lag"), want, "{text:?}");
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
