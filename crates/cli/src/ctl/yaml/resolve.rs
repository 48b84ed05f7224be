//! Which plain texts a YAML 1.1 reader takes for something else than a text.

/// True when `text` without quotes would be read as null, a boolean, a number, a date or a special key.
pub(super) fn is_not_text(text: &str) -> bool {
    is_word(text) || is_int(text) || is_float(text) || is_timestamp(text)
}

fn is_word(text: &str) -> bool {
    const WORDS: [&str; 8] = ["yes", "no", "true", "false", "on", "off", "null", ""];
    let uniform = |word: &str| text == word || text == word.to_uppercase() || text == capitalised(word);
    matches!(text, "~" | "<<" | "=") || WORDS.into_iter().any(uniform)
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

/// A digit, then digits and underscores.
fn is_digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && all(text, is_digit_or_underscore)
}

/// One or more groups of `:` and a number below 60.
fn is_base_60_tail(text: &str) -> bool {
    let group = |part: &str| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [tens, one] => (b'0'..=b'5').contains(tens) && one.is_ascii_digit(),
        _ => false,
    };
    text.strip_prefix(':').is_some_and(|tail| tail.split(':').all(group))
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    if let Some(binary) = text.strip_prefix("0b") {
        return all(binary, |byte| matches!(byte, b'0' | b'1' | b'_'));
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return all(hexadecimal, |byte| byte.is_ascii_hexdigit() || byte == b'_');
    }
    if let Some(octal) = text.strip_prefix('0') {
        return octal.is_empty() || all(octal, |byte| matches!(byte, b'0'..=b'7' | b'_'));
    }
    let (head, tail) = text.find(':').map_or((text, ""), |at| text.split_at(at));
    is_digits(head) && (tail.is_empty() || is_base_60_tail(tail))
}

fn is_float(text: &str) -> bool {
    let number = unsigned(text);
    if matches!(number, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = number.find(['e', 'E']).map_or((number, ""), |at| number.split_at(at));
    let exponent_fits = exponent.is_empty()
        || exponent[1..].strip_prefix(['-', '+']).is_some_and(|digits| all(digits, |byte| byte.is_ascii_digit()));
    let Some((whole, fraction)) = mantissa.split_once('.') else { return false };
    let fraction_fits = fraction.bytes().all(is_digit_or_underscore);
    if let Some(at) = whole.find(':') {
        let (head, tail) = whole.split_at(at);
        return exponent.is_empty() && fraction_fits && is_digits(head) && is_base_60_tail(tail);
    }
    if whole.is_empty() {
        return number == text && is_digits(fraction) && exponent_fits;
    }
    is_digits(whole) && fraction_fits && exponent_fits
}

/// `2001-12-14`, or a date and a time such as `2001-12-14t21:59:43.10-05:00` or `2001-12-14 21:59:43.10 -5`.
fn is_timestamp(text: &str) -> bool {
    let mut rest = text;
    let Some(year) = number(&mut rest, 4, 4) else { return false };
    let Some(month) = after(&mut rest, '-').then(|| number(&mut rest, 1, 2)).flatten() else { return false };
    let Some(day) = after(&mut rest, '-').then(|| number(&mut rest, 1, 2)).flatten() else { return false };
    if rest.is_empty() {
        return (year, month, day) == (4, 2, 2);
    }
    if !(after(&mut rest, 'T') || after(&mut rest, 't')) {
        let blanks = rest.trim_start_matches([' ', '\t']);
        if blanks.len() == rest.len() {
            return false;
        }
        rest = blanks;
    }
    let time = number(&mut rest, 1, 2).is_some()
        && after(&mut rest, ':')
        && number(&mut rest, 2, 2).is_some()
        && after(&mut rest, ':')
        && number(&mut rest, 2, 2).is_some();
    if !time {
        return false;
    }
    if after(&mut rest, '.') {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    if rest.is_empty() {
        return true;
    }
    rest = rest.trim_start_matches([' ', '\t']);
    if rest == "Z" {
        return true;
    }
    (after(&mut rest, '-') || after(&mut rest, '+'))
        && number(&mut rest, 1, 2).is_some()
        && (rest.is_empty() || after(&mut rest, ':') && number(&mut rest, 2, 2).is_some() && rest.is_empty())
}

/// Takes digits from the front and returns how many there were, when that is at least `min` and at most `max`.
fn number(rest: &mut &str, min: usize, max: usize) -> Option<usize> {
    let digits = rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if digits < min {
        return None;
    }
    *rest = &rest[digits..];
    Some(digits)
}

/// Takes one character from the front when it is there.
fn after(rest: &mut &str, character: char) -> bool {
    match rest.strip_prefix(character) {
        Some(tail) => {
            *rest = tail;
            true
        }
        None => false,
    }
}
