//! Lines of bounded width.

/// The width that the texts are made for.
pub(in crate::ctl) const WIDTH: usize = 100;

/// A line that begins with `head`; further lines are indented by as much, and break between words.
pub(in crate::ctl) fn wrapped(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let mut lines = String::from(head);
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > WIDTH {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            column = indent;
        }
        if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines.truncate(lines.trim_end().len());
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_are_indented() {
        let text = wrapped("  n1  ", &"word ".repeat(40));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert!(lines[0].starts_with("  n1  word") && lines[1].starts_with("      word"), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        assert_eq!(wrapped("a ", ""), "a\n");
    }
}
