//! Draws a table of text with ASCII rules.

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// On the left.
    Left,
    /// On the right, as numbers do.
    Right,
}

/// Draws `rows` below `header`. The title, when there is one, is written over the first rule. When any cell has more
/// than one line, a rule separates all rows.
pub(super) fn draw(title: Option<&str>, header: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header.iter().enumerate().map(|(column, head)| width(head.0, column, rows)).collect();
    let rule = rule(&widths);
    let names: Vec<String> = header.iter().map(|(name, _)| (*name).to_owned()).collect();
    let has_long_cell = rows.iter().flatten().any(|cell| cell.contains('\n'));

    let mut lines = vec![title.map_or_else(|| rule.clone(), |title| titled(&rule, title))];
    draw_row(&names, header, &widths, &mut lines);
    lines.push(rule.clone());
    for (number, row) in rows.iter().enumerate() {
        if number > 0 && has_long_cell {
            lines.push(rule.clone());
        }
        draw_row(row, header, &widths, &mut lines);
    }
    lines.push(rule);
    lines.join("\n")
}

fn width(name: &str, column: usize, rows: &[Vec<String>]) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column)).flat_map(|cell| cell.split('\n'));
    cells.chain([name]).map(|line| line.chars().count()).max().unwrap_or_default()
}

fn rule(widths: &[usize]) -> String {
    widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+"
}

/// The rule with ` title ` over it, behind its first character; cut where the table ends.
fn titled(rule: &str, title: &str) -> String {
    let title: String = format!("+ {title} ").chars().take(rule.len()).collect();
    let rest: String = rule.chars().skip(title.chars().count()).collect();
    title + &rest
}

fn draw_row(cells: &[String], header: &[(&str, Align)], widths: &[usize], lines: &mut Vec<String>) {
    let columns: Vec<Vec<&str>> = cells.iter().map(|cell| cell.split('\n').collect()).collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(1);
    for at in 0..height {
        let mut line = String::new();
        for ((column, (_, align)), &width) in columns.iter().zip(header).zip(widths) {
            let text = column.get(at).copied().unwrap_or_default();
            let cell = match align {
                Align::Left => format!("| {text:<width$} "),
                Align::Right => format!("| {text:>width$} "),
            };
            line.push_str(&cell);
        }
        lines.push(line + "|");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [(&str, Align); 2] = [("Name", Align::Left), ("TL", Align::Right)];

    #[test]
    fn a_title_is_written_over_the_first_rule_and_cut_at_its_end() {
        let rows = [vec!["a".to_owned(), "1".to_owned()]];
        assert_eq!(
            draw(Some("of x"), &HEADER, &rows),
            "+ of x +----+\n| Name | TL |\n+------+----+\n| a    |  1 |\n+------+----+"
        );
        let long = draw(Some("a title that is too long"), &HEADER, &[]);
        assert_eq!(long, "+ a title tha\n| Name | TL |\n+------+----+\n+------+----+");
    }

    #[test]
    fn a_cell_with_two_lines_separates_all_rows() {
        let row = |name: &str| vec![name.to_owned(), String::new()];
        assert_eq!(
            draw(None, &HEADER, &[row("a\nb"), row("c")]),
            "+------+----+\n| Name | TL |\n+------+----+\n| a    |    |\n| b    |    |\n+------+----+\n| c    |    |\n+------+----+"
        );
    }
}
