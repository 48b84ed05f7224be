//! The nearest known name, for messages about unknown ones.

/// The candidate that `name` was most likely meant to be; `None` when nothing is close.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let distances = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    distances.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Longest name that is compared; anything longer is no typing mistake.
const LENGTH_MAX: usize = 80;

/// Levenshtein's distance, `-` and `_` and case being equal.
fn distance(one: &str, other: &str) -> usize {
    let plain = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).take(LENGTH_MAX).collect()
    };
    let (one, other) = (plain(one), plain(other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let cheapest = (diagonal + usize::from(a != b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cheapest);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_something_else_is_not() {
        let names = ["loop_wait", "retry_timeout", "ttl", "postgresql"];
        for (name, want) in [
            ("loop-wait", Some("loop_wait")),
            ("postgres", Some("postgresql")),
            ("retry_timout", Some("retry_timeout")),
            ("tll", Some("ttl")),
            ("something", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, names), want, "{name}");
        }
    }
}
